//! Replays the corpus and the regressions of the fuzz target `selectors`, whole and cut short at every byte.

use std::fs;
use std::path::Path;

#[path = "support/selector_text.rs"]
mod selector_text;

#[test]
fn any_text_is_a_selector_with_one_meaning_or_refused_with_its_place() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut texts = 0;
    for folder in ["corpus/selectors", "regressions/selectors"] {
        let Ok(files) = fs::read_dir(fuzz.join(folder)) else { continue };
        for file in files.map(Result::unwrap).filter(|file| file.file_name() != ".gitkeep") {
            let bytes = fs::read(file.path()).unwrap();
            (0..=bytes.len()).for_each(|end| selector_text::run(&bytes[..end]));
            texts += 1;
        }
    }
    assert!(texts > 0, "the corpus is gone");
}
