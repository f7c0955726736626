//! The examples, in the binary, so that the demo runs from any folder.

/// Name and text of each file of `examples/workflows`.
pub const WORKFLOWS: &[(&str, &str)] = &[
    (
        "content_review.yaml",
        include_str!("../../../examples/workflows/content_review.yaml"),
    ),
    (
        "five_steps.yaml",
        include_str!("../../../examples/workflows/five_steps.yaml"),
    ),
    (
        "nightly_report.yaml",
        include_str!("../../../examples/workflows/nightly_report.yaml"),
    ),
    (
        "order_fulfilment.yaml",
        include_str!("../../../examples/workflows/order_fulfilment.yaml"),
    ),
    (
        "refund_approval.yaml",
        include_str!("../../../examples/workflows/refund_approval.yaml"),
    ),
    (
        "strategic_planning.yaml",
        include_str!("../../../examples/workflows/strategic_planning.yaml"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::definition::{Defaults, parse};

    #[test]
    fn the_list_is_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workflows");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        names.sort();
        assert_eq!(
            names,
            WORKFLOWS.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        );
    }

    #[test]
    fn every_example_is_valid() {
        for (name, text) in WORKFLOWS {
            parse(text, Some(name), &Defaults::default())
                .unwrap_or_else(|violations| panic!("{violations}"));
        }
    }
}
