//! What the documents say one can type.

#[path = "documents/commands.rs"]
mod commands;

#[test]
fn every_command_that_the_documents_name_exists() {
    commands::exist(env!("CARGO_BIN_EXE_tortie"), "tortie", 80);
}
