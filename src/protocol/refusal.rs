//! Why a line was refused: small enough to be made a million times a second.

use std::fmt;

/// What a line claimed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Anything that is not one of the others.
    Metric,
    /// `_e{`
    Event,
    /// `_sc|`
    ServiceCheck,
    /// An SSF message.
    Span,
    /// A datagram, frame or line refused before it was looked at.
    Unknown,
}

impl PacketType {
    /// All of them, in the order of their discriminants.
    pub const ALL: [PacketType; 5] = [
        PacketType::Metric,
        PacketType::Event,
        PacketType::ServiceCheck,
        PacketType::Span,
        PacketType::Unknown,
    ];

    /// Value of the `packet_type` tag of `veneur.packet.error_total`.
    pub const fn as_str(self) -> &'static str {
        match self {
            PacketType::Metric => "metric",
            PacketType::Event => "event",
            PacketType::ServiceCheck => "service_check",
            PacketType::Span => "span",
            PacketType::Unknown => "unknown",
        }
    }
}

/// The first rule a line breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No `:` behind the name.
    MissingValue,
    /// Nothing before the first `:` of a metric, or between `_sc|` and the next `|`.
    EmptyName,
    /// No `|` behind the values.
    MissingType,
    /// Not one of `c g ms h d s`.
    UnknownType,
    /// Not a decimal number, or too large for a double.
    BadValue,
    /// NaN or infinite.
    NonFinite,
    /// Not a number in `0 < rate <= 1`.
    BadSampleRate,
    /// Not a whole number of seconds above 0.
    BadTimestamp,
    /// `_e{..}` header with missing or bad lengths.
    BadEventHeader,
    /// Shorter than its header says, or no `|` between title and text.
    EventTruncated,
    /// An event without a title.
    EmptyTitle,
    /// A service check without a status.
    BadServiceCheck,
    /// A status other than 0, 1, 2 or 3.
    BadStatus,
    /// Longer than `metric_max_length`.
    TooLong,
    /// A timestamp on a kind that cannot keep it (`h`, `ms`, `d`, `s`).
    TimestampUnsupported,
    /// From a host outside the listener's allow-list; said of whole datagrams, by who receives
    /// them.
    NotAllowed,
    /// An SSF message that is no protobuf.
    BadProtobuf,
    /// An SSF message with neither a span nor a sample.
    EmptySpan,
    /// Of brubeck's: a blank in the name, or a dot at its end.
    BadName,
    /// Of brubeck's: something behind the type that is no sample rate.
    UnknownSection,
}

impl Reason {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Reason; 20] = [
        Reason::MissingValue,
        Reason::EmptyName,
        Reason::MissingType,
        Reason::UnknownType,
        Reason::BadValue,
        Reason::NonFinite,
        Reason::BadSampleRate,
        Reason::BadTimestamp,
        Reason::BadEventHeader,
        Reason::EventTruncated,
        Reason::EmptyTitle,
        Reason::BadServiceCheck,
        Reason::BadStatus,
        Reason::TooLong,
        Reason::TimestampUnsupported,
        Reason::NotAllowed,
        Reason::BadProtobuf,
        Reason::EmptySpan,
        Reason::BadName,
        Reason::UnknownSection,
    ];

    /// Value of the `reason` tag of `veneur.packet.error_total`, and the `error` that
    /// `veneur explain --json` prints.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::MissingValue => "missing_value",
            Reason::EmptyName => "empty_name",
            Reason::MissingType => "missing_type",
            Reason::UnknownType => "unknown_type",
            Reason::BadValue => "bad_value",
            Reason::NonFinite => "non_finite",
            Reason::BadSampleRate => "bad_sample_rate",
            Reason::BadTimestamp => "bad_timestamp",
            Reason::BadEventHeader => "bad_event_header",
            Reason::EventTruncated => "event_truncated",
            Reason::EmptyTitle => "empty_title",
            Reason::BadServiceCheck => "bad_service_check",
            Reason::BadStatus => "bad_status",
            Reason::TooLong => "toolong",
            Reason::TimestampUnsupported => "timestamp_unsupported",
            Reason::NotAllowed => "not_allowed",
            Reason::BadProtobuf => "bad_protobuf",
            Reason::EmptySpan => "empty_span",
            Reason::BadName => "bad_name",
            Reason::UnknownSection => "unknown_section",
        }
    }
}

/// A refused line: what it was, why, and where. Bad input must stay cheap, so it is `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the line claimed to be.
    pub packet: PacketType,
    /// The first rule it breaks.
    pub reason: Reason,
    /// Byte offset in the line of what breaks it.
    pub at: u32,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason.as_str(), self.at)
    }
}

impl std::error::Error for Refusal {}
