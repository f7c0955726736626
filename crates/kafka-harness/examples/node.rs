//! One node of Apache Kafka to try and to measure things on, with the heap that Kafka ships with:
//! prints where it listens, and runs until the end of standard input (or a signal).

use std::io::Read;

fn main() -> Result<(), kafka_harness::Missing> {
    let kafka = kafka_harness::Kafka::start_as_shipped()?;
    println!("{}", kafka.bootstrap());
    // Whatever ends the input, the node has done its service.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}
