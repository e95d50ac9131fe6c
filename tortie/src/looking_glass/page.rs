//! The page as it is sent: markup, style and script in one, and a policy by which a browser runs these and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

const MARKUP: &str = include_str!("page.html");
pub(super) const STYLE: &str = include_str!("page.css");
pub(super) const SCRIPT: &str =
    concat!("\"use strict\";\n{\n", include_str!("kit.js"), "\n", include_str!("views.js"), "}\n");

/// The page, ready to be sent.
pub(super) struct Page {
    bytes: Bytes,
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Page {
        let page = MARKUP.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        // Hashes in base64 and words of ASCII: always a header's value. Without one, nothing would run at all.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Page { bytes: Bytes::from(page), policy }
    }

    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }
}

/// As Content Security Policy names a script or a style by what is in it (CSP level 2, §4.2.5).
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
