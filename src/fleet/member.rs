//! What makes a process a member of a fleet: the store, the keys, and the name of the record.

use std::{fmt::Write, sync::Arc};

use super::{
    hash::hash,
    record::Limits,
    seal::Seal,
    seen_value::SeenValue,
    update_record::{Access, Shared},
};
use crate::token::identity::Identity;

#[derive(Clone)]
pub(super) struct Member {
    pub(super) shared: Arc<Shared>,
    pub(super) seal: Seal,
    /// The identity of a source that has none.
    pub(super) identity: Option<Identity>,
    pub(super) draw: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Member {
    /// The name of the record of this identity in the store. It shows nothing of the keys.
    ///
    /// Plain and sealed records have different names, so that processes with and without a key
    /// neither read nor replace each other's.
    pub(super) fn name(&self, identity: &Identity) -> String {
        let is_sealed = self.seal.is_sealed();
        let kind = [u8::from(is_sealed)];
        let hash = hash(&[b"klavi-auth fleet record", &kind, &identity.0]);
        let mut name = "klavi-auth:fleet:".to_owned();
        // 128 bits tell any two identities apart.
        for byte in &hash[..16] {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    pub(super) fn access<'a>(
        &'a self,
        name: &'a str,
        limits: Limits,
        seen: &'a SeenValue,
    ) -> Access<'a> {
        Access {
            shared: &self.shared,
            seal: &self.seal,
            draw: &*self.draw,
            limits,
            name,
            seen,
        }
    }
}
