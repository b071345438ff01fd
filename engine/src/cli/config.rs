//! `costhelm config`

use std::process::ExitCode;

use clap::ValueEnum;
use costhelm::config::{Config, reference};

use super::Outcome;

#[derive(clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Every key with its meaning and default, as Markdown.
    Reference,
    /// The defaults, as TOML.
    Defaults,
    /// JSON Schema of the file, for editors.
    Schema,
}

pub fn run(args: Args) -> Outcome {
    match args.what {
        What::Reference => print!("{}", reference::markdown()),
        What::Defaults => print!("{}", toml::to_string(&Config::default())?),
        What::Schema => println!("{}", serde_json::to_string_pretty(&reference::schema())?),
    }
    Ok(ExitCode::SUCCESS)
}
