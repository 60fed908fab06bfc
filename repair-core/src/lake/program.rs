//! Which program this is. It looks at the file of the program, and at nothing else.

use std::path::Path;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

/// What distinguishes this program from another one, and from itself before it was built again: where it lies, its size and its time; `None` if that cannot be
/// known. What a program concludes from files and keeps is only for itself, since another one may read the same files in another way, and a version
/// number does not change with every build.
pub fn identity() -> Option<&'static str> {
    static IDENTITY: OnceLock<Option<String>> = OnceLock::new();
    IDENTITY.get_or_init(|| of(&std::env::current_exe().ok()?)).as_deref()
}

fn of(program: &Path) -> Option<String> {
    let metadata = std::fs::metadata(program).ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok().filter(|since| !since.is_zero())?;
    Some(format!("{} {} {}", program.display(), metadata.len(), modified.as_nanos()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_program_that_is_built_again_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        assert_eq!(of(&path), None);
        std::fs::write(&path, "one").unwrap();
        let one = of(&path).unwrap();
        assert_eq!(of(&path).unwrap(), one);
        File::options().append(true).open(&path).unwrap().set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
        assert_ne!(of(&path).unwrap(), one);
        assert!(identity().is_some());
    }
}
