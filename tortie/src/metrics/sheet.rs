//! The memory that pages are written on. Of a large router's page it takes the kernel as long to find new memory for as it
//! takes us to write it, so what has been sent is kept for the next.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;

/// Memory of one page, which comes back when the page has been sent. While that is under way, another page takes new.
#[derive(Clone, Default)]
pub(crate) struct Sheet(Arc<Mutex<String>>);

impl Sheet {
    /// What `write` makes of an empty text.
    pub(crate) fn write(&self, write: impl FnOnce(String) -> String) -> Bytes {
        let empty = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Bytes::from_owner(Written { text: write(empty), home: self.clone() })
    }
}

/// A page that is being sent.
struct Written {
    text: String,
    home: Sheet,
}

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_on_the_memory_of_the_one_that_was_sent() {
        let sheet = Sheet::default();
        let write = |text: &'static str| {
            sheet.write(|mut page| {
                assert!(page.is_empty());
                page.push_str(text);
                page
            })
        };
        let first = write("a longer page");
        let place = first.as_ptr();
        let meanwhile = write("another");
        assert_eq!((&*first, &*meanwhile), (&b"a longer page"[..], &b"another"[..]));
        drop(meanwhile);
        drop(first);
        let next = write("next");
        assert_eq!((&*next, next.as_ptr()), (&b"next"[..], place));
    }
}
