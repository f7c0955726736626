//! EndTxn: commit or abort. One record in the log ends the transaction in all its partitions and groups.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::authentic;
use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::Event;
use crate::state::transaction::Phase;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let (outcome, durable) = broker.store.write(|writer| {
        let id = request.transactional_id.as_str();
        let state = writer.state();
        let transaction = authentic(
            state,
            id,
            request.producer_id.0,
            request.producer_epoch,
            version >= 2,
        )?;
        match &transaction.phase {
            Phase::Open { .. } => {
                let (transactional_id, epoch) = (id.to_owned(), transaction.epoch);
                writer.emit(Event::TransactionEnded {
                    transactional_id,
                    committed: request.committed,
                    epoch,
                });
                Ok(())
            }
            // The answer got lost and the client asks again.
            Phase::Ended { committed } if *committed == request.committed => Ok(()),
            Phase::Empty { .. } | Phase::Ended { .. } => Err(ResponseError::InvalidTxnState),
        }
    });
    let outcome = match durable.wait().await {
        Ok(()) => outcome,
        Err(_) => Err(ResponseError::CoordinatorNotAvailable),
    };
    EndTxnResponse::default()
        .with_error_code(outcome.err().map_or(0, |error| error.code()))
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
