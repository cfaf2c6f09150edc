//! GRIP for Pushpin.
