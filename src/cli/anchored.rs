//! Waiting until the intake has its place in a topic: what is sent before is not for its rules.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use crate::log::kafka::{ClientSettings, SourceLog};

const ANCHORED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Returns once the intake of the installation `prefix` has committed offsets of these partitions.
///
/// # Errors
/// In words: the broker does not answer, or the partitions are not read within a minute.
pub async fn until_anchored(
    settings: &ClientSettings,
    prefix: &str,
    partitions: &[(String, i32)],
) -> Result<(), String> {
    let mut config = settings.client_config();
    config.set("group.id", SourceLog::group(prefix));
    let group: BaseConsumer = config.create().map_err(|error| error.to_string())?;
    let mut places = TopicPartitionList::new();
    for (topic, partition) in partitions {
        places.add_partition(topic, *partition);
    }
    let deadline = Instant::now() + ANCHORED_WITHIN;
    let asked = tokio::task::spawn_blocking(move || {
        loop {
            let committed = group.committed_offsets(places.clone(), ANCHORED_WITHIN);
            let committed = committed.map_err(|error| error.to_string())?;
            let has_place =
                |place: &TopicPartitionListElem<'_>| matches!(place.offset(), Offset::Offset(_));
            if committed.elements().iter().all(has_place) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the rules' topics are not read".to_owned());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    });
    asked.await.map_err(|error| error.to_string())?
}
