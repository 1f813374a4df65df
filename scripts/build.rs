//! Build script: hands the commit that is built to the program, which records it with each result.
//! Enters: the variable of that name, else the git checkout, where there is one. Leaves: `KVPOC_COMMIT`. Must not fail without git.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=scripts/build.rs");
    // Moves with every commit; absent in a source archive, where the commit is unknown anyway.
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    println!("cargo:rerun-if-env-changed=KVPOC_COMMIT");
    let commit = std::env::var("KVPOC_COMMIT").unwrap_or_else(|_| checked_out());
    println!("cargo:rustc-env=KVPOC_COMMIT={commit}");
}

fn checked_out() -> String {
    Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
