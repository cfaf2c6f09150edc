//! The slots of a worker, and who may have how many of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::call::Parties;
use crate::store::Room;

/// The part of a worker's slots that one organisation, and one principal, may have at once. What an organisation
/// does then leaves room for the others, whether or not any of them is there: a slot that a long call has can't be
/// taken back. At least one slot each, so a worker with a single slot gives it to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shares {
    /// Percent of the slots for one organisation.
    pub organisation: u8,
    /// Percent of the slots for one principal.
    pub principal: u8,
}

impl Default for Shares {
    fn default() -> Self {
        Self { organisation: 75, principal: 50 }
    }
}

setters!(Shares {
    with_organisation => organisation: u8,
    with_principal => principal: u8,
});

/// Slots that calls run in.
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// Slots that one organisation, and one principal, may have.
    organisation: usize,
    principal: usize,
    /// How many each has, by the names of [`Parties`].
    taken: Mutex<HashMap<String, usize>>,
    /// Somebody who had all that they may have gave a slot back.
    released: Notify,
    /// The same, for who reads the queue.
    roomier: Notify,
}

/// A slot that nobody has yet.
pub(super) struct FreeSlot(OwnedSemaphorePermit);

/// A slot that a call runs in. Given back when dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    parties: Parties,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub(super) fn new(count: usize, shares: Shares) -> Arc<Self> {
        let part = |percent: u8| (count.saturating_mul(usize::from(percent.min(100))) / 100).max(1);
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            organisation: part(shares.organisation),
            principal: part(shares.principal),
            taken: Mutex::default(),
            released: Notify::new(),
            roomier: Notify::new(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a free slot. None: the worker ends.
    pub(super) async fn free(&self) -> Option<FreeSlot> {
        self.free.clone().acquire_owned().await.ok().map(FreeSlot)
    }

    /// A free slot, if there is one.
    pub(super) fn free_now(&self) -> Option<FreeSlot> {
        self.free.clone().try_acquire_owned().ok().map(FreeSlot)
    }

    /// Slots that are free.
    pub(super) fn count(&self) -> usize {
        self.free.available_permits()
    }

    /// What may be taken from a queue, `most` lines at once.
    pub(super) fn room(&self, most: usize) -> Room {
        let taken = self.taken().clone();
        Room { most, organisation: self.organisation, principal: self.principal, taken }
    }

    /// Gives a free slot to a call, if it may have one.
    pub(super) fn give(self: &Arc<Self>, free: FreeSlot, parties: &Parties) -> Result<Slot, FreeSlot> {
        let mut taken = self.taken();
        let has = |name: &String| taken.get(name).copied().unwrap_or_default();
        if has(&parties.organisation) >= self.organisation || has(&parties.principal) >= self.principal {
            return Err(free);
        }
        for name in [&parties.organisation, &parties.principal] {
            *taken.entry(name.clone()).or_default() += 1;
        }
        Ok(Slot { slots: self.clone(), parties: parties.clone(), _permit: free.0 })
    }

    /// Waits for a slot that the call may have. None: the worker ends.
    pub(super) async fn acquire(self: &Arc<Self>, parties: &Parties) -> Option<Slot> {
        loop {
            let released = self.released.notified();
            match self.give(self.free().await?, parties) {
                Ok(slot) => return Some(slot),
                // Dropped before the wait: somebody else may have it meanwhile.
                Err(free) => drop(free),
            }
            released.await;
        }
    }

    /// Waits until somebody who had all that they may have gave a slot back. For the one who reads the queue.
    pub(super) async fn roomier(&self) {
        self.roomier.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = self.slots.clone();
        let mut was_full = false;
        {
            let mut taken = slots.taken();
            let bounds = [
                (&self.parties.organisation, slots.organisation),
                (&self.parties.principal, slots.principal),
            ];
            for (name, bound) in bounds {
                if let Entry::Occupied(mut entry) = taken.entry(name.clone()) {
                    was_full |= *entry.get() >= bound;
                    *entry.get_mut() = entry.get().saturating_sub(1);
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                }
            }
        }
        if was_full {
            slots.released.notify_waiters();
            slots.roomier.notify_one();
        }
    }
}
