//! The name of an instance. It lives as long as the data folder, so that a restart fences what it left
//! behind; two at work under one name would fence each other for ever. So a copy of the folder takes a
//! name of its own: beside the file with the name stands which file that was.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::InstanceError;

/// Holds the name.
const NAME: &str = "instance";

/// Holds the number of the inode of that file.
const PLACE: &str = "instance.inode";

/// The name of the instance with this data folder, which is made where it is missing; without one a new name.
///
/// # Errors
/// A folder that cannot be read or written.
pub(super) fn of(data_dir: Option<&Path>) -> Result<String, InstanceError> {
    let Some(folder) = data_dir else {
        return Ok(fresh());
    };
    in_folder(folder).map_err(|source| InstanceError::DataDir {
        folder: folder.to_owned(),
        source,
    })
}

fn fresh() -> String {
    format!("i-{}", uuid::Uuid::now_v7().simple())
}

fn in_folder(folder: &Path) -> std::io::Result<String> {
    fs::create_dir_all(folder)?;
    let (name_file, place_file) = (folder.join(NAME), folder.join(PLACE));
    let kept = match fs::read_to_string(&name_file) {
        Ok(name) => Some(name.trim().to_owned()).filter(|name| !name.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let inode = |file: &Path| fs::metadata(file).map(|metadata| metadata.ino().to_string());
    if let Some(name) = kept {
        let here = inode(&name_file)?;
        // Folders of earlier programs do not tell.
        match fs::read_to_string(&place_file) {
            Ok(there) if there.trim() == here => return Ok(name),
            Ok(_) => {}
            Err(_) => {
                fs::write(&place_file, here)?;
                return Ok(name);
            }
        }
        tracing::warn!(
            folder = %folder.display(), name,
            "the data folder is a copy; this instance takes a name of its own"
        );
        // The other file must not keep the old name where it is the same by a hard link.
        fs::remove_file(&name_file)?;
    }
    let name = fresh();
    fs::write(&name_file, &name)?;
    fs::write(&place_file, inode(&name_file)?)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_name_and_a_copy_takes_another() {
        let root = tempfile::tempdir().expect("a folder");
        let (first, copy) = (root.path().join("first"), root.path().join("copy"));
        let name = of(Some(&first)).expect("a name");
        assert_eq!(of(Some(&first)).expect("a name"), name);
        fs::create_dir(&copy).expect("a folder");
        for file in [NAME, PLACE] {
            fs::copy(first.join(file), copy.join(file)).expect("a copy");
        }
        let other = of(Some(&copy)).expect("a name");
        assert_ne!(other, name);
        assert_eq!(of(Some(&copy)).expect("a name"), other);
        assert_eq!(of(Some(&first)).expect("a name"), name);
    }

    #[test]
    fn a_folder_of_an_earlier_program_keeps_its_name() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join(NAME), "i-1\n").expect("a file");
        for _ in 0..2 {
            assert_eq!(of(Some(root.path())).expect("a name"), "i-1");
        }
        assert_ne!(of(None).expect("a name"), of(None).expect("a name"));
    }
}
