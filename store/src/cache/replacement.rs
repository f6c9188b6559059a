//! Copies of objects that are registered already, to put in the places of broken ones.

use super::{SubstituteError, Substituters};
use crate::local::{LocalStore, Staged};
use crate::path_info::PathInfo;

impl Substituters {
    /// Brings a copy of a registered object beside the store, from the first cache that sends the bytes that are registered.
    ///
    /// The registered hash decides, so nobody's signature is asked for: it says more than a key could. A cache that announces
    /// other content is not asked for it.
    ///
    /// # Errors
    /// When no cache has the object, or all of them have something else.
    pub fn replacement(&self, store: &LocalStore, registered: &PathInfo) -> Result<Staged, SubstituteError> {
        let copy = self.first(&registered.path, |cache, info| {
            let (size, hash) = (Some(registered.nar_size), Some(registered.nar_hash));
            cache.compare(&registered.path, "the NAR", size, info.nar_size, hash, || info.nar_hash)?;
            cache.restore(store, &info)
        });
        copy.map(|(staged, _)| staged)
    }
}
