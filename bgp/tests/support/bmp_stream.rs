//! A stream of BMP that says anything at all: for the fuzz target `bmp`, and for tests.

use bgp::bmp::wire::Message;

/// Reads messages until the first that is none. What is read can be written, and says the same then.
pub fn run(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((message, after))) = Message::take(rest) {
        let mut bytes = Vec::new();
        message.emit(&mut bytes);
        let (again, left) = Message::take(&bytes).expect("our own message").expect("all of it");
        assert!(left.is_empty());
        assert_eq!(again, message);
        rest = after;
    }
}
