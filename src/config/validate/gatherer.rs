//! Who this instance is, whom it reports to, and what it gathers itself.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::intake::{ServerTlsKeys, server_tls};
use super::{filled, length, number};
use crate::config::listen::{Family, HOST_PORT, resolve};
use crate::config::machine::Machine;
use crate::config::problem::Report;
use crate::config::raw::{One, Raw};
use crate::config::reading::Given;
use crate::config::reference::{REFERENCE_FORM, Reference, TOKEN_FORM, is_token};
use crate::config::secret::{BaseUrl, Secret};
use crate::config::settings::{GathererSettings, IdentitySettings, Program};

const MAX_ID_BYTES: usize = 64;
/// Loopback until told otherwise.
const ADDRESS: &str = "127.0.0.1:8131";
const POLL_INTERVAL: Duration = Duration::from_secs(60);
const POLL_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3_600);
const POLL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
/// Munin's plugins run as another user.
const FILE_MODE: u32 = 0o644;
const MAX_PROVIDERS: u64 = 10_000;

pub(super) fn identity(raw: &Raw, report: &mut Report) -> IdentitySettings {
    let instance_id = filled(&raw.instance_id).map(|given| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if given.value.len() > MAX_ID_BYTES || !given.value.bytes().all(legal) {
            let accepted = "1 to 64 letters, digits, dots, dashes and underscores";
            report.refuse(&given.source, "not an id", accepted);
        }
        given.value.clone()
    });
    let state_directory = absolute(&raw.state_directory, report);
    IdentitySettings { instance_id, state_directory }
}

/// The gatherer to register with, if there is one.
pub(super) fn reference(raw: &Raw, machine: &Machine, report: &mut Report) -> Option<Reference> {
    let file = filled(&raw.gatherer_reference_file);
    let (given, text) = match (filled(&raw.gatherer_reference), file) {
        (Some(_), Some(file)) => {
            let what = "set beside gatherer.reference";
            report.refuse(&file.source, what, "one of them");
            return None;
        }
        (Some(given), None) => (given, given.value.clone()),
        (None, Some(file)) => (file, text_of(file, machine, report)?),
        (None, None) => return None,
    };
    Reference::parse(text.trim())
        .map_err(|what| report.refuse(&given.source, what, REFERENCE_FORM))
        .ok()
}

fn text_of(file: &Given<String>, machine: &Machine, report: &mut Report) -> Option<String> {
    report.files.push(file.value.clone().into());
    let read = (machine.read)(Path::new(&file.value))
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| std::io::Error::other("not UTF-8")));
    read.map_err(|error| {
        report.refuse(&file.source, format!("cannot be read: {error}"), "a file with a reference");
    })
    .ok()
}

/// What this instance gathers: a daemon or a proxy does if there is a directory for it, a
/// gatherer has to.
pub(super) fn gatherer(
    program: Program,
    raw: &Raw,
    machine: &Machine,
    report: &mut Report,
) -> Option<GathererSettings> {
    let directory = absolute(&raw.gatherer_directory, report);
    let written = filled(&raw.gatherer_address);
    let address = resolve(written.map_or(ADDRESS, |given| &given.value), Family::Any, machine);
    let address = match (address, written) {
        (Ok(address), _) => Some(address),
        (Err(what), Some(given)) => {
            report.refuse(&given.source, what, HOST_PORT);
            None
        }
        (Err(_), None) => None,
    };
    let poll_interval = length(&raw.gatherer_poll_interval, &POLL_INTERVALS, POLL_INTERVAL, report);
    let poll_timeout = length(&raw.gatherer_poll_timeout, &POLL_TIMEOUTS, POLL_TIMEOUT, report);
    let token = filled(&raw.gatherer_token).map(|given| {
        if !is_token(&given.value) {
            report.refuse(&given.source, "not a token", TOKEN_FORM);
        }
        Secret::new(given.value.clone())
    });
    let keys = ServerTlsKeys {
        certificate: ("gatherer.tls_certificate", &raw.gatherer_tls_certificate),
        key: ("gatherer.tls_key", &raw.gatherer_tls_key),
        authority: &None,
    };
    let tls = server_tls(&keys, true, machine, report);
    let file_mode = file_mode(&raw.gatherer_file_mode, report);
    let max_providers = number(&raw.gatherer_max_providers, 1..=1_000_000, MAX_PROVIDERS, report);
    let mut urls = Vec::new();
    for given in raw.gatherer_urls.as_deref().unwrap_or_default() {
        match BaseUrl::parse(&given.value) {
            Ok(url) => urls.push(url),
            Err(accepted) => report.refuse(&given.source, "not a base URL", accepted),
        }
    }
    let directory = match (directory, program) {
        (Some(directory), _) => directory,
        (None, Program::Daemon | Program::Proxy) => return None,
        // Reported by `lacks_of_a_gatherer`, where the file's name is known.
        (None, Program::Gatherer) => PathBuf::new(),
    };
    Some(GathererSettings {
        address: address?,
        directory,
        poll_interval,
        poll_timeout,
        token,
        tls,
        file_mode,
        urls,
        max_providers: NonZeroUsize::new(max_providers)?,
    })
}

fn absolute(given: &One<String>, report: &mut Report) -> Option<PathBuf> {
    let given = filled(given)?;
    let path = PathBuf::from(&given.value);
    if !path.is_absolute() {
        let accepted = "a directory such as /var/lib/veneur";
        report.refuse(&given.source, "not an absolute path", accepted);
    }
    Some(path)
}

fn file_mode(given: &One<String>, report: &mut Report) -> u32 {
    let Some(given) = filled(given) else { return FILE_MODE };
    match u32::from_str_radix(&given.value, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => mode,
        Ok(_) | Err(_) => {
            report.refuse(&given.source, "not the mode of such a file", "\"0600\" to \"0666\"");
            FILE_MODE
        }
    }
}
