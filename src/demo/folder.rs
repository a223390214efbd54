//! A folder for the demo's data that is gone when the demo is over.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::DemoError;

/// Removes itself and all that is in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes one that was not there, for this user's eyes only.
    pub(super) fn fresh() -> Result<Self, DemoError> {
        let mut random = [0u8; 8];
        let random = getrandom::fill(&mut random)
            .map(|()| u64::from_le_bytes(random))
            .map_err(|e| DemoError::System(io::Error::other(e.to_string())))?;
        let path = std::env::temp_dir().join(format!("kith-demo-{random:016x}"));
        // It is an error if it is there already, so nobody can have put something into it.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(DemoError::Folder { path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the demo's folder was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_what_is_in_it_along() {
        let folder = Folder::fresh().expect("a folder");
        let path = folder.path().to_owned();
        fs::write(path.join("x"), "y").expect("writable");
        drop(folder);
        assert!(!path.exists());
    }
}
