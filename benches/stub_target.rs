//! A target whose right answer is known, as a program: `cargo bench --bench stub_target -- exponential 0.05` prints its
//! address and serves until it is ended. For `scripts/verdicts`.

#[path = "../tests/it/stub.rs"]
#[allow(
    dead_code,
    reason = "the tests use more of it than a command line can name"
)]
mod stub;

use stub::Mode;

fn main() {
    // cargo adds an argument of its own.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match words.join(" ").parse::<Mode>() {
        Ok(mode) => {
            println!("http://{}", stub::start(mode));
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(64);
        }
    }
}
