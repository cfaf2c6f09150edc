//! The smallest image and sound that are whole.

/// A PNG of one red pixel, in base64.
pub(crate) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";

/// A WAV without a sample (8 kHz, mono, 8 bits), in base64.
pub(crate) const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};

    #[test]
    fn they_are_what_they_say() {
        let png = BASE64_STANDARD.decode(super::PNG).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.ends_with(b"IEND\xaeB`\x82"));
        let wav = BASE64_STANDARD.decode(super::WAV).unwrap();
        assert!(wav.starts_with(b"RIFF") && wav.len() == 44);
    }
}
