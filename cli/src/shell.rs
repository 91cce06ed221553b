//! `rds-iam completions` and `rds-iam man`: shell completions and manual pages.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

pub(crate) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  rds-iam completions bash > ~/.local/share/bash-completion/completions/rds-iam
  rds-iam completions zsh > ~/.zfunc/_rds-iam
  rds-iam completions fish > ~/.config/fish/completions/rds-iam.fish";

pub(crate) const MAN_EXAMPLES: &str = "\
Examples:
  rds-iam man | man -l -
  rds-iam man --dir ~/.local/share/man/man1";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Writes the pages of this command and of its subcommands into this folder, and creates the
    /// folder if necessary
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<ExitCode, Box<dyn Error>> {
    let mut script = Vec::new();
    let mut command = crate::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "rds-iam", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(arguments: &ManArguments) -> Result<ExitCode, Box<dyn Error>> {
    let command = crate::Arguments::command();
    match &arguments.dir {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(command, folder))
                .map_err(|cause| {
                    format!(
                        "cannot write manual pages into {}: {cause}",
                        folder.display()
                    )
                })?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            io::stdout().write_all(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
