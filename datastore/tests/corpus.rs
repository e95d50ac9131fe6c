//! Replays the corpus and the regressions of the fuzz target `resources`, whole and cut short at every byte.

use std::fs;
use std::path::Path;

#[path = "support/resources.rs"]
mod resources;

#[test]
fn any_text_is_read_or_refused_with_its_place() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut texts = 0;
    for folder in ["corpus/resources", "regressions/resources"] {
        let Ok(files) = fs::read_dir(fuzz.join(folder)) else { continue };
        for file in files.map(Result::unwrap).filter(|file| file.file_name() != ".gitkeep") {
            let bytes = fs::read(file.path()).unwrap();
            (0..=bytes.len()).for_each(|end| resources::run(&bytes[..end]));
            texts += 1;
        }
    }
    assert!(texts > 0, "the corpus is gone");
}
