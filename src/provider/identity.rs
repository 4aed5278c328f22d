//! Who an instance is to those that look at it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::file::replace_file;
use crate::config::settings::IdentitySettings;

const MAX_ID_BYTES: usize = 64;
/// Lower case base32 (RFC 4648).
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Names in the state directory.
const ID_FILE: &str = "instance_id";
const EPOCH_FILE: &str = "epoch";

/// Who an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 1 to 64 letters, digits, dots, dashes and underscores, the same after a restart if there
    /// is somewhere to keep it.
    pub id: String,
    /// Milliseconds since 1970 at the start of the process; later than at any start before.
    pub epoch: u64,
    /// For people; need not be unique.
    pub nickname: String,
}

/// Why an instance cannot have its identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the state directory.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is written there is none.
    #[error("{path} holds no id", path = .0.display())]
    NotAnId(PathBuf),
}

impl Identity {
    /// One with this id, which [`is_id`], that begins now.
    pub fn new(id: &str, nickname: &str) -> Identity {
        debug_assert!(is_id(id), "{id:?} is an id");
        let epoch = milliseconds(SystemTime::now());
        Identity { id: id.to_owned(), epoch, nickname: nickname.to_owned() }
    }

    /// The identity that the settings ask for; what is made is kept in the state directory. Without
    /// a nickname it is called by its id.
    ///
    /// # Errors
    /// The state directory cannot be used.
    pub fn establish(
        settings: &IdentitySettings,
        nickname: Option<&str>,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let mut epoch = milliseconds(now);
        let mut id = settings.instance_id.clone();
        if let Some(directory) = &settings.state_directory {
            let in_directory = |source| IdentityError::File { path: directory.clone(), source };
            fs::create_dir_all(directory).map_err(in_directory)?;
            if id.is_none() {
                id = Some(kept_id(&directory.join(ID_FILE))?);
            }
            let path = directory.join(EPOCH_FILE);
            // One that cannot be read is as good as none: the clock decides.
            let last = read(&path)?.and_then(|text| text.trim().parse::<u64>().ok());
            epoch = epoch.max(last.map_or(0, |last| last.saturating_add(1)));
            replace(&path, &format!("{epoch}\n"))?;
        }
        let id = id.unwrap_or_else(random_id);
        let nickname = nickname.unwrap_or(&id).to_owned();
        Ok(Identity { id, epoch, nickname })
    }
}

/// Whether `text` can be an id: nothing in it can shape a path, a log line or another's fields.
pub fn is_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(legal)
}

/// 128 random bits as 26 characters.
pub(crate) fn random_id() -> String {
    let mut bytes = [0u8; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).expect("the system gives random numbers from its start");
    let bits = u128::from_be_bytes(bytes);
    (0..26).rev().map(|at| char::from(ALPHABET[(bits >> (5 * at)) as usize % 32])).collect()
}

fn kept_id(path: &Path) -> Result<String, IdentityError> {
    if let Some(text) = read(path)? {
        let id = text.trim();
        return match is_id(id) {
            true => Ok(id.to_owned()),
            false => Err(IdentityError::NotAnId(path.to_owned())),
        };
    }
    let id = random_id();
    replace(path, &format!("{id}\n"))?;
    Ok(id)
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

fn replace(path: &Path, text: &str) -> Result<(), IdentityError> {
    replace_file(path, text.as_bytes(), 0o600)
        .map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

fn milliseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("veneur-identity-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn an_id_is_26_characters_of_chance() {
        let (one, other) = (random_id(), random_id());
        assert_ne!(one, other);
        for id in [one, other] {
            assert!(id.len() == 26 && is_id(&id), "{id}");
            assert!(id.bytes().all(|byte| ALPHABET.contains(&byte)), "{id}");
        }
    }

    #[test]
    fn with_a_directory_the_id_stays_and_the_epoch_grows_whatever_the_clock_says() {
        let directory = scratch("kept");
        let settings =
            IdentitySettings { instance_id: None, state_directory: Some(directory.clone()) };
        let start =
            |now| Identity::establish(&settings, Some("n"), now).expect("it can be written");
        let first = start(at(100));
        assert_eq!(first.epoch, 100_000);
        let mode = fs::metadata(directory.join(ID_FILE)).expect("it is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let back_in_time = start(at(50));
        assert_eq!((&back_in_time.id, back_in_time.epoch), (&first.id, 100_001));
        assert_eq!(start(at(200)).epoch, 200_000);
        fs::write(directory.join(ID_FILE), "a b\n").expect("it can be written");
        let error = Identity::establish(&settings, Some("n"), at(1)).expect_err("that is no id");
        assert!(error.to_string().ends_with("holds no id"), "{error}");
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn without_a_directory_it_is_made_anew_unless_it_is_given() {
        let start = |settings: &IdentitySettings| {
            Identity::establish(settings, None, at(1)).expect("nothing is written")
        };
        let unset = IdentitySettings::default();
        assert_ne!(start(&unset).id, start(&unset).id);
        let given = IdentitySettings { instance_id: Some("pod-7".to_owned()), ..unset };
        assert_eq!((start(&given).id, start(&given).nickname), ("pod-7".into(), "pod-7".into()));
    }
}
