//! The directory of a gatherer: its token, the reference it hands out, and how both are made.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::SetupError;
use crate::config::reference::{Fingerprint, Reference, is_token};
use crate::config::secret::Secret;
use crate::config::settings::GathererSettings;
use crate::provider::{random_id, replace_file};

const TOKEN_FILE: &str = "gatherer_token";
const REFERENCE_FILE: &str = "stats_gatherer.ref";
const CONFIG_FILE: &str = "gatherer.yaml";
/// Of what holds a secret.
const SECRET_MODE: u32 = 0o600;
/// Munin's plugins, which run as another user, get at `stats.json`.
const DIRECTORY_MODE: u32 = 0o755;

/// Why a directory cannot be made for a gatherer.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is something in it.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// It has to be found again.
    #[error("{} is not an absolute path in UTF-8", .0.display())]
    NotAbsolute(PathBuf),
    /// Where providers are to connect to.
    #[error("cannot use address {address}: {what}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be written.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Makes a directory for a gatherer at `address`: configuration, token, and the reference for
/// providers, which is returned.
///
/// # Errors
/// There are files in it, it cannot be written, or the address is none.
pub fn init(directory: &Path, address: &str) -> Result<Reference, InitError> {
    let name = directory.to_str().filter(|_| directory.is_absolute());
    let name = name.ok_or_else(|| InitError::NotAbsolute(directory.to_owned()))?;
    let token = Secret::new(random_id());
    let reference = Reference::new(token.clone(), address, None)
        .map_err(|what| InitError::Address { address: address.to_owned(), what })?;
    self::directory(directory)?;
    let entries = fs::read_dir(directory)
        .map_err(|source| SetupError::File { path: directory.to_owned(), source })?;
    if entries.count() > 0 {
        return Err(InitError::NotEmpty(directory.to_owned()));
    }
    write(&directory.join(TOKEN_FILE), &format!("{}\n", token.reveal()), SECRET_MODE)?;
    write(&directory.join(REFERENCE_FILE), &format!("{}\n", reference.reveal()), SECRET_MODE)?;
    // JSON texts are YAML texts.
    let config = format!(
        "# Run it with: veneur gatherer -f {name}/{CONFIG_FILE}\n\
         # What providers need is in {REFERENCE_FILE}; example.yaml has every key.\n\
         gatherer:\n  directory: {}\n  address: {}\n",
        serde_json::Value::from(name),
        serde_json::Value::from(address),
    );
    write(&directory.join(CONFIG_FILE), &config, 0o644)?;
    Ok(reference)
}

/// Makes the directory if it is missing, so that others get at what they may read in it.
///
/// # Errors
/// What the system says.
pub(crate) fn directory(path: &Path) -> Result<(), SetupError> {
    let made = fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
    made.map_err(|source| SetupError::File { path: path.to_owned(), source })
}

/// The token of the settings, or the one that is kept in the directory, which is made if there
/// is none.
pub(super) fn token(settings: &GathererSettings) -> Result<Secret, SetupError> {
    if let Some(token) = &settings.token {
        return Ok(token.clone());
    }
    let path = settings.directory.join(TOKEN_FILE);
    if let Some(text) = read(&path)? {
        let token = text.trim();
        return match is_token(token) {
            true => Ok(Secret::new(token.to_owned())),
            false => Err(SetupError::NoToken(path)),
        };
    }
    let token = random_id();
    write(&path, &format!("{token}\n"), SECRET_MODE)?;
    Ok(Secret::new(token))
}

/// How providers find us, and know that it is us.
pub(super) struct Findable<'a> {
    /// Where we listen.
    pub(super) address: SocketAddr,
    /// Who we are, if that is everywhere.
    pub(super) hostname: Option<&'a str>,
    /// Of the certificate, if there is one.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// Sees to it that the reference for providers is in the directory. It is made if there is none,
/// or one with another token, port or certificate: the name by which they find us may be one that
/// we do not know.
pub(super) fn keep_reference(
    directory: &Path,
    token: &Secret,
    findable: &Findable<'_>,
) -> Result<(), SetupError> {
    let Findable { address: bound, hostname, fingerprint } = *findable;
    let path = directory.join(REFERENCE_FILE);
    let kept = read(&path)?.and_then(|text| Reference::parse(text.trim()).ok());
    let port = format!(":{}", bound.port());
    let is_ours = |kept: &Reference| {
        kept.token() == token
            && kept.address().ends_with(&port)
            && kept.fingerprint() == fingerprint
    };
    if kept.as_ref().is_some_and(is_ours) {
        return Ok(());
    }
    let address = match hostname {
        Some(hostname) if bound.ip().is_unspecified() => format!("{hostname}:{}", bound.port()),
        Some(_) | None => bound.to_string(),
    };
    let reference = Reference::new(token.clone(), &address, fingerprint);
    let reference = reference.map_err(|what| SetupError::System(io::Error::other(what)))?;
    write(&path, &format!("{}\n", reference.reveal()), SECRET_MODE)
}

fn read(path: &Path) -> Result<Option<String>, SetupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SetupError::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), SetupError> {
    replace_file(path, text.as_bytes(), mode)
        .map_err(|source| SetupError::File { path: path.to_owned(), source })
}
