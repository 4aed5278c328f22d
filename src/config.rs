//! YAML, environment and defaults, turned into [`Settings`].

pub mod listen;
pub mod machine;
pub mod secret;
pub mod settings;

pub use secret::{BaseUrl, Secret};
pub use settings::Settings;
