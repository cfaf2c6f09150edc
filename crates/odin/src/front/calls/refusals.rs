//! What clients are told of calls that bring no answer.

use crate::call::Whose;
use crate::protocol::Refusal;

/// The call waited too long for a worker.
pub(crate) fn not_taken() -> Refusal {
    Refusal::unavailable(
        "No worker took the call in time, and it will not run. Try again; if it stays so, see whether workers run.",
        5,
    )
}

/// The call's record is gone.
pub(crate) fn lost() -> Refusal {
    Refusal::unavailable(
        "The call was lost, and its outcome is unknown. Check whether it took effect before you ask again.",
        1,
    )
}

/// The call was cancelled although its client is there: this node was silent for so long that the client was taken
/// for gone. In the stateless era a client cancels by going away, and in no other way.
pub(crate) fn given_up() -> Refusal {
    Refusal::unavailable(
        "The call was given up, as the server that waited for it was paused for too long; its outcome is unknown. \
         Check whether it took effect before you ask again.",
        1,
    )
}

/// The store did not answer in the middle of a call.
pub(crate) fn unknown() -> Refusal {
    Refusal::unavailable(
        "The session store does not answer, so what became of the call is unknown. Check whether it took \
         effect before you ask again.",
        2,
    )
}

/// The store does not answer, and nothing was begun.
pub(crate) fn silent() -> Refusal {
    Refusal::unavailable(
        "The session store does not answer; the call was not begun. Try again in a few seconds.",
        2,
    )
}

/// What a request is told that is not answered when the backend stops.
pub(crate) fn stopping() -> Refusal {
    Refusal::unavailable(
        "The server stops before the call has ended. Check whether it took effect before you ask again.",
        1,
    )
}

pub(crate) fn full() -> Refusal {
    Refusal::unavailable("The queue is full. Try again in a few seconds.", 5)
}

pub(crate) fn too_many(whose: Whose) -> Refusal {
    Refusal::too_many(
        match whose {
            Whose::Principal => {
                "You have too many calls that are queued, running or not yet delivered. Wait for some to end."
            }
            Whose::Organisation => {
                "Your organisation has too many calls that are queued, running or not yet delivered. Wait for some to end."
            }
        },
        1,
    )
}
