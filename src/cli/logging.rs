//! Where logs go: to stderr, and nowhere else.

use log::LevelFilter;
use simple_logger::SimpleLogger;

/// Starts logging at a level. A second call changes the level only.
pub(super) fn init(level: LevelFilter) {
    let logger = SimpleLogger::new()
        .with_level(level)
        // Its debug lines quote handshakes, and a handshake holds a token.
        .with_module_level("tungstenite", LevelFilter::Warn.min(level))
        .with_module_level("ureq", LevelFilter::Warn.min(level))
        .with_module_level("ureq_proto", LevelFilter::Warn.min(level));
    if logger.init().is_err() {
        log::set_max_level(level);
    }
}
