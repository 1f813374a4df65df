//! Where one result goes: a file that is replaced as a whole, or anything else, which is written straight.
//!
//! Enters: a setting, its path, bytes. Leaves: a file with all of the bytes, or the one that was there before. Must
//! not leave half a result, nor find out after the run what could be known before it.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// As many as Linux follows (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;
/// Of a new file, before the umask.
const NEW_FILE_MODE: u32 = 0o666;

/// A place that can be written, as far as that can be known.
#[derive(Debug)]
pub(super) struct Destination {
    /// The setting and the path, for messages.
    name: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// A regular file, which may be still to be made.
    Replace(PathBuf),
    /// A pipe, a device, a descriptor of the process.
    Straight(File),
}

/// Bytes that are on the disk, and wait for taking their place.
#[derive(Debug)]
pub(super) struct Staged {
    name: String,
    file: Option<(NamedTempFile, PathBuf)>,
}

impl Destination {
    /// Finds out whether `path` of `setting` can be written, and changes nothing there.
    ///
    /// # Errors
    /// When it cannot; the message names both.
    pub(super) fn check(setting: &str, path: &Path) -> anyhow::Result<Self> {
        let name = format!("{setting} {}", path.display());
        let way = Way::of(path).with_context(|| format!("cannot write {name}"))?;
        Ok(Self { name, way })
    }

    /// Writes the bytes: straight, or to a file beside the one that they are going to replace.
    ///
    /// # Errors
    /// When not all of them could be written. What a file held before is still there then.
    pub(super) fn stage(self, bytes: &[u8]) -> anyhow::Result<Staged> {
        let Self { name, way } = self;
        let written = match way {
            Way::Straight(mut file) => file.write_all(bytes).map(|()| None),
            Way::Replace(path) => stage(&path, bytes).map(|file| Some((file, path))),
        };
        let file = written.with_context(|| format!("writing {name}"))?;
        Ok(Staged { name, file })
    }
}

impl Staged {
    /// Puts the file in its place.
    ///
    /// # Errors
    /// When somebody took its folder away.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Some((file, path)) = self.file else {
            return Ok(());
        };
        replace(file, &path).with_context(|| format!("writing {}", self.name))
    }
}

/// The folder of `--out`, made if it is missing, with a destination for each name; none without the setting.
///
/// # Errors
/// When one of them cannot be written.
pub(super) fn check_folder(
    out: Option<&Path>,
    names: &[impl AsRef<Path>],
) -> anyhow::Result<Vec<Destination>> {
    let Some(out) = out else {
        return Ok(Vec::new());
    };
    std::fs::create_dir_all(out)
        .with_context(|| format!("cannot write to --out {}", out.display()))?;
    names
        .iter()
        .map(|name| Destination::check("--out", &out.join(name)))
        .collect()
}

/// All of them are on the disk before the first takes its place, so that the files of one folder are of one run.
///
/// # Errors
/// When one of them could not be written; none is replaced then.
pub(super) fn write_all(files: Vec<Destination>, forms: &[Vec<u8>]) -> anyhow::Result<()> {
    let staged: anyhow::Result<Vec<Staged>> = files
        .into_iter()
        .zip(forms)
        .map(|(file, bytes)| file.stage(bytes))
        .collect();
    staged?.into_iter().try_for_each(Staged::finish)
}

/// Both of two outcomes: the message of neither is lost.
pub(super) fn both(one: anyhow::Result<()>, other: anyhow::Result<()>) -> anyhow::Result<()> {
    match (one, other) {
        (Err(one), Err(other)) => Err(anyhow::anyhow!("{one:#}; {other:#}")),
        (one, other) => one.and(other),
    }
}

impl Way {
    fn of(path: &Path) -> io::Result<Self> {
        let path = resolve(path)?;
        match path.metadata() {
            Ok(found) if is_descriptor(&path) || !(found.is_file() || found.is_dir()) => {
                open_straight(&path).map(Self::Straight)
            }
            // A folder fails here, and so does a file that must not be written.
            Ok(_) => {
                File::options().write(true).open(&path)?;
                beside(&path, None)?;
                Ok(Self::Replace(path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                beside(&path, None)?;
                Ok(Self::Replace(path))
            }
            Err(error) => Err(error),
        }
    }
}

/// Follows links to the file itself, so that they survive its replacement; also one that leads to nothing yet. Those
/// of `/proc` stand for open descriptors, which `/dev/stdout` and process substitutions come down to, and are left.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize()?;
        let here = folder.join(name);
        match std::fs::read_link(&here) {
            Ok(next) if !is_descriptor(&here) => path = folder.join(next),
            _ => return Ok(here),
        }
    }
    Err(Errno::LOOP.into())
}

fn is_descriptor(path: &Path) -> bool {
    path.starts_with("/proc")
}

/// Behind whatever is there: standard output may be a file that holds the report already. A pipe that nobody reads
/// is refused rather than waited for.
fn open_straight(path: &Path) -> io::Result<File> {
    let file = File::options()
        .append(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// A new file in the folder of another one, with its owner and permissions where there is one.
fn beside(path: &Path, like: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let folder = path.parent().ok_or(io::ErrorKind::IsADirectory)?;
    let file = tempfile::Builder::new()
        .prefix(".kvpoc-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(NEW_FILE_MODE))
        .tempfile_in(folder)?;
    if let Some(like) = like {
        // Only root may give a file away, and then it would be missed.
        let _ = std::os::unix::fs::chown(file.path(), Some(like.uid()), Some(like.gid()));
        file.as_file().set_permissions(like.permissions())?;
    }
    Ok(file)
}

fn stage(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = beside(path, path.metadata().ok().as_ref())?;
    // Not through the wrapper, which would name the file beside in each error.
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn replace(file: NamedTempFile, path: &Path) -> io::Result<()> {
    match file.persist(path) {
        Ok(_) => {}
        // A file that is a mount point, as containers have them, cannot be replaced, only written.
        Err(error) if error.error.kind() == io::ErrorKind::ResourceBusy => {
            std::fs::copy(error.file.path(), path)?;
            OpenOptions::new().write(true).open(path)?.sync_all()?;
        }
        Err(error) => return Err(error.error),
    }
    // The new name is on the disk when its folder is; a file system that cannot say so is not to blame.
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        Destination::check("--json", path)?.stage(bytes)?.finish()
    }

    /// What is in a folder, hidden files included.
    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_or_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        drop(Destination::check("--json", &path).expect("it can be written"));
        assert!(names(folder.path()).is_empty());
        for bytes in ["a long first result", "short"] {
            write(&path, bytes.as_bytes()).expect("it is written");
            assert_eq!(std::fs::read_to_string(&path).expect("a file"), bytes);
            assert_eq!(names(folder.path()), ["a.json"]);
        }
    }

    #[test]
    fn what_was_there_stays_until_all_of_the_new_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        std::fs::write(&path, "old").expect("it is written");
        let destination = Destination::check("--json", &path).expect("it can be written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "old");
        let staged = destination.stage(b"new").expect("it is written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "old");
        drop(staged);
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "old");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn links_and_permissions_survive() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "old").expect("it is written");
        std::fs::set_permissions(at("file"), Permissions::from_mode(0o604)).expect("it is ours");
        symlink("file", at("link")).expect("a link");
        symlink(at("link"), at("link-to-link")).expect("a link");
        symlink("still-to-be-made", at("dangling")).expect("a link");
        symlink("loop", at("loop")).expect("a link");
        write(&at("link-to-link"), b"new").expect("it is written");
        write(&at("dangling"), b"made").expect("it is written");
        let read = |name: &str| std::fs::read_to_string(at(name)).expect("a file");
        assert_eq!(
            (read("file"), read("still-to-be-made")),
            ("new".into(), "made".into())
        );
        let mode = at("file").metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o604);
        for link in ["link", "link-to-link", "dangling"] {
            assert!(at(link).is_symlink(), "{link}");
        }
        assert!(write(&at("loop"), b"").is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_written_straight() {
        write(Path::new("/dev/null"), b"away").expect("it takes anything");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        for folder in ["/proc/self/fd", "/dev/fd"] {
            let path = PathBuf::from(format!("{folder}/{number}"));
            write(&path, b"whole;").expect("somebody reads");
        }
        drop(writer);
        assert_eq!(
            std::io::read_to_string(&mut reader).expect("text"),
            "whole;whole;"
        );
    }

    #[test]
    fn an_open_file_is_written_behind_what_it_holds() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"a report\n").expect("it is written");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        write(Path::new(&format!("/dev/fd/{number}")), b"{}").expect("it is written");
        io::Seek::rewind(&mut file).expect("a file");
        assert_eq!(io::read_to_string(file).expect("text"), "a report\n{}");
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_its_setting_and_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing/a.json");
        for path in [
            folder.path(),
            &missing,
            Path::new("/proc/a.json"),
            Path::new(".."),
        ] {
            let error = Destination::check("--json", path).expect_err("it cannot be written");
            let expected = format!("cannot write --json {}", path.display());
            assert!(error.to_string() == expected, "{error:#}");
        }
        let full = Destination::check("--json", Path::new("/dev/full")).expect("it opens");
        let error = full.stage(b"{}").expect_err("it is full");
        assert_eq!(error.to_string(), "writing --json /dev/full");
    }
}
