//! Buffers for text that may contain a secret. They are wiped when they are dropped.

use std::fmt::{self, Write};

use bytes::{Buf, BufMut, Bytes};
use secrecy::zeroize::Zeroizing;

/// A growing buffer that leaves no copy of its content behind.
#[derive(Default)]
pub(crate) struct WipedBuffer(Zeroizing<Vec<u8>>);

impl WipedBuffer {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn put(&mut self, data: impl Buf) {
        let length = self.0.len() + data.remaining();
        if length > self.0.capacity() {
            // By hand: a `Vec` that grows by itself frees the old block unwiped.
            let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.put(data);
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

impl Write for WipedBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// As `format!`, but the text ends where a `Display` of the arguments fails.
pub(crate) fn format(text: fmt::Arguments<'_>) -> Zeroizing<String> {
    let mut buffer = WipedBuffer::default();
    // What was written before an error is kept.
    let _ = buffer.write_fmt(text);
    let bytes = std::mem::take(&mut *buffer.0);
    // Whole strings were written, so this is UTF-8.
    Zeroizing::new(String::from_utf8(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_text_is_complete_and_ends_at_an_error() {
        let long = "x".repeat(1000);
        assert_eq!(
            *format(format_args!("{}-{long}-{:?}", 7, "é")),
            format!("7-{long}-\"é\"")
        );
        assert_eq!(*format(format_args!("")), "");

        struct Failing;
        impl fmt::Display for Failing {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("before")?;
                Err(fmt::Error)
            }
        }
        assert_eq!(*format(format_args!("{Failing} and after")), "before");
    }
}
