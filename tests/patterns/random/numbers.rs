//! Random rules that aggregate and compare numbers. Thresholds lie between the values that the
//! streams have, since percentiles are known to a part only.

use serde_json::{Value, json};

use super::Writer;

impl Writer<'_> {
    pub(super) fn window(&mut self) -> Value {
        let size = 1 + self.random.below(12);
        let span = |millis: u64| format!("{millis}ms");
        let mut window = match self.random.below(10) {
            0..3 => json!({"type": "tumbling", "size": span(size)}),
            3 => json!({"type": "tumbling", "size": span(size), "emit": "early"}),
            4..6 => {
                let every = 1 + self.random.below(size);
                json!({"type": "sliding", "size": span(size), "every": span(every)})
            }
            6..8 => json!({"type": "sliding", "size": span(size)}),
            _ => json!({"type": "session", "gap": span(1 + size / 2)}),
        };
        if self.random.percent(30) {
            window["where"] = self.expression(false).into();
        }
        let mut having = Vec::new();
        let count = 1 + self.random.below(3);
        for place in 0..count {
            let name = format!("a{place}");
            let function = match self.random.below(9) {
                0..2 => "count",
                2 => "sum(v)",
                3 => "avg(v)",
                4 => "min(v)",
                5 => "max(v)",
                6 => self.random.pick(&["stddev(v)", "stddev_pop(v)"]),
                7 => self
                    .random
                    .pick(&["distinct(v)", "distinct(k)", "distinct(u)"]),
                _ => self
                    .random
                    .pick(&["median(v)", "percentile_95(v)", "percentile_20(v)"]),
            };
            window["aggregate"][&name] = function.into();
            if self.random.percent(60) {
                having.push(self.threshold(&name, function));
            }
        }
        let is_compared = window.get("emit").is_none() && self.random.percent(35);
        // What is close to a value is close to a part of it as well.
        let compared = if is_compared {
            self.comparable(&window)
        } else {
            None
        };
        if let Some(name) = &compared {
            let (word, mut measure) = self.measure();
            measure["field"] = name.as_str().into();
            let over = measure["over"].as_str().map(|text| text.replace("ms", ""));
            if let Some(over) = over.and_then(|over| over.parse::<u64>().ok()) {
                // It reaches the window before.
                measure["over"] = span(over + size).into();
            }
            window[word] = measure;
        }
        if !having.is_empty() || compared.is_none() {
            let word = self.random.pick(&[" && ", " || "]);
            window["having"] = match having.is_empty() {
                true => "true".into(),
                false => having.join(word).into(),
            };
        }
        window
    }

    fn threshold(&mut self, name: &str, function: &str) -> String {
        let least = 1 + self.random.below(3);
        match function {
            "count" | "distinct(v)" | "distinct(k)" | "distinct(u)" => {
                let than = self.random.pick(&[">=", "==", "<", "!="]);
                format!("{name} {than} {least}")
            }
            _ => {
                let value = self
                    .random
                    .pick(&["-0.5", "0.3", "0.8", "1.2", "2.3", "4.7"]);
                let than = self.random.pick(&[">", "<="]);
                format!("{name} {than} {value}")
            }
        }
    }

    fn comparable(&mut self, window: &Value) -> Option<String> {
        let aggregates = window["aggregate"].as_object().expect("it has aggregates");
        let is_exact = |function: &Value| {
            let text = function.as_str().unwrap_or_default();
            !text.starts_with("median") && !text.starts_with("percentile")
        };
        let mut exact = aggregates.iter().filter(|(_, function)| is_exact(function));
        exact.next().map(|(name, _)| name.clone())
    }

    /// What a condition has beside its `where`: the word, and the measure.
    pub(super) fn measure(&mut self) -> (&'static str, Value) {
        let mut measure = json!({"field": "v"});
        if self.random.percent(50) {
            measure["direction"] = self.random.pick(&["up", "down", "any"]).into();
        }
        if self.random.percent(55) {
            measure["by"] = match self.random.below(5) {
                0 => "50%".into(),
                1 => "34%".into(),
                2 => 0.5.into(),
                _ => 1.into(),
            };
            measure["over"] = self.random.millis(1, 14).into();
            if self.random.percent(75) {
                let from = [
                    "previous",
                    "window_max",
                    "window_min",
                    "window_avg",
                    "previous_window_avg",
                ];
                measure["from"] = self.random.pick(&from).into();
            }
            return ("change", measure);
        }
        let threshold = [0.7, 1.3, 2.1][self.random.below(3) as usize];
        measure["threshold"] = threshold.into();
        match self.random.below(3) {
            0 => {
                measure["method"] = "ewma".into();
                measure["warm_up"] = (2 + self.random.below(2)).into();
                measure["alpha"] = [0.1, 0.3, 0.6][self.random.below(3) as usize].into();
            }
            1 => {
                measure["method"] = "robust_z".into();
                measure["warm_up"] = 3.into();
                measure["values"] = (3 + self.random.below(4)).into();
            }
            _ => {
                measure["method"] = "seasonal".into();
                measure["warm_up"] = 2.into();
                measure["memory"] = (2 + self.random.below(3)).into();
                let slots = 1 + self.random.below(3);
                measure["slots"] = slots.into();
                let period = slots * (1 + self.random.below(4));
                measure["period"] = format!("{period}ms").into();
            }
        }
        if measure["method"] != "robust_z" && self.random.percent(30) {
            measure["least_deviation"] = 0.4.into();
        }
        if self.random.percent(30) {
            measure["forget_after"] = self.random.millis(1, 12).into();
        }
        ("anomaly", measure)
    }
}
