//! Build script: hands the commit that is built to the program, which records it with each result.
//! Enters: the git checkout, where there is one. Leaves: `KVPOC_COMMIT`. Must not fail without git.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=scripts/build.rs");
    // Moves with every commit; absent in a source archive, where the commit is unknown anyway.
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo:rustc-env=KVPOC_COMMIT={commit}");
}
