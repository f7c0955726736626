//! InitProducerId: an id and an epoch for a producer. A transactional producer thereby replaces the one before it,
//! whose open transaction is aborted.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::Event;
use crate::store::Writer;

/// The last epoch that may be given out; after it the producer gets a new id.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Bytes of a transactional id: what the older versions of the request can carry at all.
const MAX_ID_BYTES: usize = i16::MAX as usize;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let (outcome, durable) = broker
        .store
        .write(|writer| match request.transactional_id.as_ref() {
            None => {
                let producer_id = writer.state().next_producer_id();
                writer.emit(Event::ProducerIdAllotted { producer_id });
                Ok((producer_id, 0))
            }
            Some(id) if id.is_empty() || id.len() > MAX_ID_BYTES => {
                Err(ResponseError::InvalidRequest)
            }
            Some(id) => initialise(writer, broker, id.as_str(), &request, version),
        });
    let outcome = match durable.wait().await {
        Ok(()) => outcome,
        Err(_) => Err(ResponseError::CoordinatorNotAvailable),
    };
    let response = InitProducerIdResponse::default();
    match outcome {
        Ok((producer_id, epoch)) => response
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch),
        Err(error) => response
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

fn initialise(
    writer: &mut Writer<'_>,
    broker: &BrokerInner,
    transactional_id: &str,
    request: &InitProducerIdRequest,
    version: i16,
) -> Result<(i64, i16), ResponseError> {
    let timeout_ms = request.transaction_timeout_ms;
    if timeout_ms <= 0
        || i64::from(timeout_ms) > broker.config.max_transaction_timeout.as_millis() as i64
    {
        return Err(ResponseError::InvalidTransactionTimeout);
    }
    let Some(before) = writer.state().transaction(transactional_id) else {
        if writer.state().transactions().count() >= broker.config.max_transactional_ids {
            return Err(ResponseError::PolicyViolation);
        }
        let producer_id = writer.state().next_producer_id();
        let transactional_id = transactional_id.to_owned();
        writer.emit(Event::TransactionalProducer {
            transactional_id,
            producer_id,
            epoch: 0,
            timeout_ms,
            renews: None,
        });
        return Ok((producer_id, 0));
    };
    let (producer_id, epoch) = (before.producer_id, before.epoch);
    // A producer that says who it was (to go on after an error) must not have been replaced meanwhile.
    let said = (request.producer_id.0, request.producer_epoch);
    if before.was_renewed_from(said) {
        return Ok((producer_id, epoch));
    }
    if said.0 >= 0
        && !(said.0 == producer_id && (said.1 == epoch || Some(said.1) == before.timed_out_epoch))
    {
        return Err(if version >= 4 {
            ResponseError::ProducerFenced
        } else {
            ResponseError::InvalidProducerEpoch
        });
    }
    let open = before.is_open();
    let transactional_id = transactional_id.to_owned();
    let mut epoch = epoch;
    if open {
        // The markers carry the next epoch, so that the replaced producer can write nowhere any more.
        epoch = epoch.saturating_add(1);
        writer.emit(Event::TransactionEnded {
            transactional_id: transactional_id.clone(),
            committed: false,
            epoch,
        });
    }
    let (producer_id, epoch) = if epoch >= LAST_EPOCH {
        (writer.state().next_producer_id(), 0)
    } else {
        (producer_id, epoch + 1)
    };
    writer.emit(Event::TransactionalProducer {
        transactional_id,
        producer_id,
        epoch,
        timeout_ms,
        renews: (said.0 >= 0).then_some(said),
    });
    Ok((producer_id, epoch))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kafka_protocol::messages::TransactionalId;
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::{Broker, Config};

    const FENCED: i16 = 90;

    /// Asks for `transfer`, as one that says who it was or as a new one. Producer id and epoch, or the error.
    async fn ask(broker: &Broker, said: Option<(i64, i16)>) -> Result<(i64, i16), i16> {
        let (producer_id, epoch) = said.unwrap_or((-1, -1));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("transfer"))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch);
        let context = RequestContext {
            client_id: String::new(),
            client_host: String::new(),
        };
        let response = handle(&broker.inner, &context, 4, request).await;
        match response.error_code {
            0 => Ok((response.producer_id.0, response.producer_epoch)),
            code => Err(code),
        }
    }

    /// A broker on a copy of the folder: what a process finds after the one before was killed.
    async fn after_a_kill(folder: &Path) -> (Broker, tempfile::TempDir) {
        let copied = tempfile::tempdir().expect("a folder");
        crate::store::tests::copy(folder, copied.path());
        let broker = Broker::start(Config::folder(copied.path())).await;
        (broker.expect("starts"), copied)
    }

    #[tokio::test]
    async fn a_producer_that_heard_no_answer_asks_again_and_is_told_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = Broker::start(Config::folder(folder.path())).await;
        let broker = broker.expect("starts");
        let first = ask(&broker, None).await.expect("it is new");
        let renewed = ask(&broker, Some(first))
            .await
            .expect("it is the present one");
        assert_eq!(renewed, (first.0, first.1 + 1));
        assert_eq!(ask(&broker, Some(first)).await, Ok(renewed));
        let (killed, _copied) = after_a_kill(folder.path()).await;
        assert_eq!(ask(&killed, Some(first)).await, Ok(renewed));
        broker.shutdown().await;
        let broker = Broker::start(Config::folder(folder.path())).await;
        let broker = broker.expect("starts again, from a checkpoint");
        assert_eq!(ask(&broker, Some(first)).await, Ok(renewed));
    }

    #[tokio::test]
    async fn a_producer_that_was_replaced_is_not_told_who_replaced_it() {
        let broker = Broker::start(Config::memory()).await.expect("starts");
        let first = ask(&broker, None).await.expect("it is new");
        let renewed = ask(&broker, Some(first))
            .await
            .expect("it is the present one");
        let heir = ask(&broker, None).await.expect("anyone may");
        assert_eq!(heir, (first.0, renewed.1 + 1));
        for replaced in [first, renewed] {
            assert_eq!(ask(&broker, Some(replaced)).await, Err(FENCED));
        }
        // Nor one that has used what it was given: then it has heard the answer.
        let again = ask(&broker, Some(heir))
            .await
            .expect("it is the present one");
        let ((), durable) = broker.inner.store.write(|writer| {
            writer.emit(Event::GroupJoined {
                transactional_id: "transfer".to_owned(),
                group: "g".to_owned(),
            });
        });
        durable.wait().await.expect("memory takes it");
        assert_eq!(ask(&broker, Some(heir)).await, Err(FENCED));
        let fresh = ask(&broker, Some(again))
            .await
            .expect("it is the present one");
        assert!(fresh.1 > again.1);
    }
}
