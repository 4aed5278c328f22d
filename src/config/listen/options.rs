//! What may be said about a listener behind its address: `?NAME=VALUE&NAME=VALUE`.
//!
//! [`OPTIONS`] is the one list of them; a further one is a row there and a field of
//! [`ListenOptions`].

use std::fmt;
use std::path::Path;

use super::allow::AllowList;
use super::{Family, HttpAddress, StatsdAddress, UnixAddress, Wrong, resolve};
use crate::config::machine::Machine;
use crate::model::Dialect;

/// An address to listen on, and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener<A> {
    /// Where.
    pub address: A,
    /// How.
    pub options: ListenOptions,
}

/// Without options.
impl<A> From<A> for Listener<A> {
    fn from(address: A) -> Listener<A> {
        Listener { address, options: ListenOptions::default() }
    }
}

/// How a listener treats who comes. Cheap to have where nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// What is spoken there, if not what is spoken everywhere.
    pub dialect: Option<Dialect>,
    /// Messages of SSF come in, and no lines: said by the key under which it is listed.
    pub spans: bool,
    /// Who may talk to it.
    pub allow: AllowList,
    /// Of a Unix socket's file.
    pub file: FileAccess,
}

/// Whose a Unix socket's file is, and who may open it; `None` is as the daemon makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileAccess {
    /// Its permission bits. Whoever may write it may connect.
    pub mode: Option<u32>,
    /// The number of its user.
    pub owner: Option<u32>,
    /// The number of its group.
    pub group: Option<u32>,
}

/// What an option may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    socket: SocketKind,
    serves: Serves,
}

/// Who is behind a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    /// Statsd traffic.
    Statsd,
    /// HTTP or gRPC.
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketKind {
    Inet,
    UnixFile,
    UnixAbstract,
    /// Opened by somebody else; it may be of any kind.
    Passed,
}

/// One option.
struct Row {
    name: &'static str,
    /// Whose listeners have it.
    of: &'static [Serves],
    /// Says why it makes no sense there.
    fits: fn(Target) -> Result<(), &'static str>,
    read: fn(&mut ListenOptions, &str, &Machine) -> Result<(), Wrong>,
    /// Its value, as it may be written.
    show: fn(&ListenOptions) -> Option<String>,
}

const ANY: &[Serves] = &[Serves::Statsd, Serves::Http];
const STATSD: &[Serves] = &[Serves::Statsd];

/// Every option.
const OPTIONS: &[Row] = &[
    Row {
        name: "dialect",
        of: STATSD,
        fits: |_| Ok(()),
        read: |options, text, _| {
            let known = Dialect::ALL.map(Dialect::as_str).join(", ");
            let dialect = Dialect::from_name(text);
            options.dialect = Some(dialect.ok_or(format!("{text:?} is none of {known}"))?);
            Ok(())
        },
        show: |options| options.dialect.map(|dialect| dialect.as_str().to_owned()),
    },
    Row {
        name: "allow",
        of: ANY,
        fits: has_peers_with_addresses,
        read: |options, text, _| {
            options.allow = AllowList::parse(text)?;
            Ok(())
        },
        show: |options| (!options.allow.is_everyone()).then(|| options.allow.to_string()),
    },
    Row {
        name: "mode",
        of: ANY,
        fits: has_a_file,
        read: |options, text, _| {
            options.file.mode = Some(mode(text)?);
            Ok(())
        },
        show: |options| options.file.mode.map(|mode| format!("{mode:04o}")),
    },
    Row {
        name: "owner",
        of: ANY,
        fits: has_a_file,
        read: |options, text, machine| {
            options.file.owner = Some(number_of(text, "user", "/etc/passwd", machine)?);
            Ok(())
        },
        show: |options| options.file.owner.map(|number| number.to_string()),
    },
    Row {
        name: "group",
        of: ANY,
        fits: has_a_file,
        read: |options, text, machine| {
            options.file.group = Some(number_of(text, "group", "/etc/group", machine)?);
            Ok(())
        },
        show: |options| options.file.group.map(|number| number.to_string()),
    },
];

fn has_peers_with_addresses(target: Target) -> Result<(), &'static str> {
    match target.socket {
        SocketKind::Inet | SocketKind::Passed => Ok(()),
        SocketKind::UnixFile => Err("who may use a Unix socket is said by its mode"),
        SocketKind::UnixAbstract => Err("anyone on the host may use an abstract name"),
    }
}

fn has_a_file(target: Target) -> Result<(), &'static str> {
    match target.socket {
        SocketKind::UnixFile => Ok(()),
        SocketKind::Inet => Err("only the file of a Unix socket has one"),
        SocketKind::UnixAbstract => Err("an abstract name has no file, so anyone may use it"),
        SocketKind::Passed => Err("the file is of whoever opened the socket"),
    }
}

/// Permission bits, in octal.
fn mode(text: &str) -> Result<u32, Wrong> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or_else(|| format!("{text:?} is no mode such as 0660"))
}

/// The number of a user or group: as it is, or by its name.
fn number_of(text: &str, what: &str, list: &str, machine: &Machine) -> Result<u32, Wrong> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The largest one means "leave it" to the kernel.
        let number = text.parse().ok().filter(|number| *number < u32::MAX);
        return number.ok_or_else(|| format!("{text:?} is no number of a {what}"));
    }
    let known = (machine.read)(Path::new(list)).map_err(|error| format!("{list}: {error}"))?;
    // NAME:PASSWORD:NUMBER:...
    let known = String::from_utf8_lossy(&known);
    let number = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    number.ok_or_else(|| format!("{list} has no {what} {text:?}; a number will do, too"))
}

impl ListenOptions {
    /// From what is behind the question mark.
    fn parse(text: &str, target: Target, machine: &Machine) -> Result<ListenOptions, Wrong> {
        let mut options = ListenOptions::default();
        let mut given: Vec<&str> = Vec::new();
        for option in text.split('&') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let rows = OPTIONS.iter().filter(|row| row.of.contains(&target.serves));
            let Some(row) = rows.clone().find(|row| row.name == name) else {
                let names: Vec<_> = rows.map(|row| row.name).collect();
                return Err(format!("there is no option {name:?}, only {}", names.join(", ")));
            };
            if given.contains(&name) {
                return Err(format!("option {name} is given twice"));
            }
            given.push(name);
            (row.fits)(target).map_err(|why| format!("option {name}: {why}"))?;
            (row.read)(&mut options, value, machine)
                .map_err(|why| format!("option {name}: {why}"))?;
        }
        Ok(options)
    }
}

/// As it may be written behind an address; nothing if nothing was said.
impl fmt::Display for ListenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sign = '?';
        for row in OPTIONS {
            if let Some(value) = (row.show)(self) {
                write!(f, "{sign}{}={value}", row.name)?;
                sign = '&';
            }
        }
        Ok(())
    }
}

impl<A: fmt::Display> fmt::Display for Listener<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, self.options)
    }
}

impl Listener<StatsdAddress> {
    /// From one entry of `statsd_listen_addresses`.
    ///
    /// # Errors
    /// Why not.
    pub fn parse(text: &str, machine: &Machine) -> Result<Self, Wrong> {
        Self::from_parts(text, machine, |address| StatsdAddress::parse(address, machine))
    }

    /// From `HOST:PORT`, for `kind` of it.
    ///
    /// # Errors
    /// Why not.
    pub fn parse_inet(
        text: &str,
        kind: fn(std::net::SocketAddr) -> StatsdAddress,
        machine: &Machine,
    ) -> Result<Self, Wrong> {
        Self::from_parts(text, machine, |address| resolve(address, Family::Any, machine).map(kind))
    }

    fn from_parts(
        text: &str,
        machine: &Machine,
        parse: impl FnOnce(&str) -> Result<StatsdAddress, Wrong>,
    ) -> Result<Self, Wrong> {
        let (address, options) = split(text);
        let address = parse(address)?;
        let socket = match &address {
            StatsdAddress::Udp(_) | StatsdAddress::Tcp(_) => SocketKind::Inet,
            StatsdAddress::Unixgram(unix) | StatsdAddress::UnixStream(unix) => kind_of(unix),
            StatsdAddress::Inherited(_) => SocketKind::Passed,
        };
        finish(address, options, Target { socket, serves: Serves::Statsd }, machine)
    }
}

impl Listener<HttpAddress> {
    /// From `http_address` or `grpc_address`.
    ///
    /// # Errors
    /// Why not.
    pub fn parse(text: &str, machine: &Machine) -> Result<Self, Wrong> {
        let (address, options) = split(text);
        let address = HttpAddress::parse(address, machine)?;
        let socket = match &address {
            HttpAddress::Tcp(_) => SocketKind::Inet,
            HttpAddress::Unix(unix) => kind_of(unix),
            HttpAddress::Fd(_) | HttpAddress::Einhorn(_) => SocketKind::Passed,
        };
        finish(address, options, Target { socket, serves: Serves::Http }, machine)
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((address, options)) => (address, Some(options)),
        None => (text, None),
    }
}

fn kind_of(address: &UnixAddress) -> SocketKind {
    match address {
        UnixAddress::Path(_) => SocketKind::UnixFile,
        UnixAddress::Abstract(_) => SocketKind::UnixAbstract,
    }
}

fn finish<A>(
    address: A,
    options: Option<&str>,
    target: Target,
    machine: &Machine,
) -> Result<Listener<A>, Wrong> {
    let parsed = options.map(|options| ListenOptions::parse(options, target, machine));
    Ok(Listener { address, options: parsed.transpose()?.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn machine() -> Machine {
        fn read(path: &Path) -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/etc/passwd") => Ok(b"root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/x\n".into()),
                Some("/etc/group") => Ok(b"root:x:0:\nmetrics:x:77:web\n".into()),
                _ => Err(io::Error::other("no such file")),
            }
        }
        Machine { read, ..Machine::this() }
    }

    fn statsd(text: &str) -> Result<Listener<StatsdAddress>, Wrong> {
        Listener::<StatsdAddress>::parse(text, &machine())
    }

    #[test]
    fn options_stand_behind_an_address() {
        for (text, shown) in [
            ("udp://127.0.0.1:1", "udp://127.0.0.1:1"),
            (
                "udp://127.0.0.1:1?allow=10.0.0.0/8,127.0.0.1",
                "udp://127.0.0.1:1?allow=10.0.0.0/8,127.0.0.1/32",
            ),
            ("tcp://127.0.0.1:1?allow=fd00::/8", "tcp://127.0.0.1:1?allow=fd00::/8"),
            ("unix:///v?mode=660&owner=web&group=metrics", "unix:///v?mode=0660&owner=33&group=77"),
            ("unixgram:///v?group=5", "unixgram:///v?group=5"),
            ("udp://127.0.0.1:1?dialect=flux", "udp://127.0.0.1:1?dialect=brubeck"),
            ("unix://@v?dialect=etsy", "unix://@v?dialect=etsy"),
            ("fd://x?allow=10.0.0.0/8", "fd://x?allow=10.0.0.0/8"),
        ] {
            let listener = statsd(text).expect(text);
            assert_eq!(listener.to_string(), shown);
            assert_eq!(statsd(shown), Ok(listener), "what is shown can be read again");
        }
        for (text, shown) in [
            ("127.0.0.1:1?allow=127.0.0.0/8", "127.0.0.1:1?allow=127.0.0.0/8"),
            ("/run/h.sock?mode=0600", "/run/h.sock?mode=0600"),
        ] {
            let listener = Listener::<HttpAddress>::parse(text, &machine()).expect(text);
            assert_eq!(listener.to_string(), shown);
        }
        let inet = |text| Listener::parse_inet(text, StatsdAddress::Tcp, &machine());
        let listener = inet("127.0.0.1:1?allow=10.0.0.0/8").expect("a good address");
        assert_eq!(listener.to_string(), "tcp://127.0.0.1:1?allow=10.0.0.0/8");
    }

    #[test]
    fn an_option_is_refused_because() {
        for (text, why) in [
            (
                "udp://127.0.0.1:1?",
                "there is no option \"\", only dialect, allow, mode, owner, group",
            ),
            (
                "udp://127.0.0.1:1?alow=1",
                "there is no option \"alow\", only dialect, allow, mode, owner, group",
            ),
            (
                "udp://127.0.0.1:1?allow",
                "option allow: \"\" is no network such as 10.0.0.0/8 or fd00::/8",
            ),
            ("udp://127.0.0.1:1?allow=10.0.0.0/8&allow=11.0.0.0/8", "option allow is given twice"),
            ("udp://127.0.0.1:1?mode=0660", "option mode: only the file of a Unix socket has one"),
            (
                "unix:///v?allow=10.0.0.0/8",
                "option allow: who may use a Unix socket is said by its mode",
            ),
            (
                "unix://@v?mode=0600",
                "option mode: an abstract name has no file, so anyone may use it",
            ),
            (
                "unix://@v?allow=10.0.0.0/8",
                "option allow: anyone on the host may use an abstract name",
            ),
            ("fd://x?mode=0600", "option mode: the file is of whoever opened the socket"),
            ("unix:///v?mode=999", "option mode: \"999\" is no mode such as 0660"),
            ("unix:///v?mode=1777", "option mode: \"1777\" is no mode such as 0660"),
            ("unix:///v?mode=rw", "option mode: \"rw\" is no mode such as 0660"),
            (
                "unix:///v?owner=nobody",
                "option owner: /etc/passwd has no user \"nobody\"; a number will do, too",
            ),
            (
                "unix:///v?group=web",
                "option group: /etc/group has no group \"web\"; a number will do, too",
            ),
            (
                "udp://127.0.0.1:1?dialect=statsite",
                "option dialect: \"statsite\" is none of dogstatsd, etsy, brubeck",
            ),
            ("unix:///v?owner=4294967295", "option owner: \"4294967295\" is no number of a user"),
        ] {
            assert_eq!(statsd(text), Err(why.to_owned()), "{text}");
        }
    }
}
