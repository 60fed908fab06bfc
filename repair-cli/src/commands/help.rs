//! The help in groups, `repair completions` and `repair man`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man as Page;

use crate::exit::Exit;
use crate::output::{Failure, count, print, wrapped};
use crate::terminal::width;

/// The commands by what they are for, in the order in which people need them.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Write a workflow", &["init", "validate", "graph", "schema", "calendar"]),
    ("Run it", &["plan", "apply", "run", "resume", "redrive", "pause", "cancel", "signal", "approve", "reject"]),
    ("Let it stand", STANDING),
    ("See what happened", &["runs", "show", "logs", "report", "status", "why", "gaps", "costs", "accuracy"]),
    ("Read what was repaired", &["query", "export", "view"]),
    ("Judge and correct", &["compare", "undo", "redo", "except"]),
    ("Look after it", &["doctor", "verify-state", "notify", "prune", "compact", "completions", "man", "help"]),
];

/// The commands of what runs by itself.
const STANDING: &[&str] = if cfg!(feature = "serve") { &["serve", "schedule"] } else { &["schedule"] };

/// How to begin, at the end of the help.
const EXAMPLES: &str = "\
Examples:
  repair init data/           Write a workflow for the files of a folder
  repair plan workflow.yaml   See what is broken, and what repairs would take
  repair run workflow.yaml    Repair it
  repair report last          See at a glance what came of it";

/// The columns in which help is written where nothing says how wide the terminal is, and the most that are used.
const COLUMNS: usize = 100;

/// The template of the help: all commands, in groups.
pub(crate) fn grouped(command: &clap::Command) -> String {
    let about = |name: &str| match name {
        "help" => "Show this, or the help of a command.".to_owned(),
        _ => command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string).unwrap_or_default(),
    };
    let widest = GROUPS.iter().flat_map(|(_, names)| *names).map(|name| name.len()).max().unwrap_or_default();
    let columns = width().unwrap_or(COLUMNS).min(COLUMNS).saturating_sub(widest + 4).max(20);
    let mut text = String::from("{about}\n\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS {
        text.push_str(&format!("\n{title}:\n"));
        for name in names {
            for (index, line) in wrapped(&about(name), columns).into_iter().enumerate() {
                let name = if index == 0 { name } else { "" };
                text.push_str(&format!("  {name:widest$}  {line}\n"));
            }
        }
    }
    text.push_str(&format!("\nOptions:\n{{options}}\n\n{EXAMPLES}{{after-help}}\n"));
    text
}

/// Print what completes the command's arguments in a shell.
///
/// For bash: `repair completions bash > ~/.local/share/bash-completion/completions/repair`. For zsh, write it to a file `_repair` in a folder
/// of `$fpath`. For fish: `repair completions fish > ~/.config/fish/completions/repair.fish`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut crate::command(), "repair", &mut text);
        let mut out = std::io::stdout().lock();
        out.write_all(&text).and_then(|()| out.flush()).map_err(anyhow::Error::from)?;
        Ok(Exit::Success)
    }
}

/// Write the manual: a page of `man` for each command.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The folder for the pages, such as `~/.local/share/man/man1`. It is created if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let cannot = || format!("the manual cannot be written to {}; choose another folder with --out", self.out.display());
        std::fs::create_dir_all(&self.out).with_context(cannot)?;
        let mut root = <crate::Cli as clap::CommandFactory>::command();
        root.build();
        let mut pages = 0;
        for command in std::iter::once(&root).chain(root.get_subcommands().filter(|command| command.get_name() != "help")) {
            let name = command.get_display_name().unwrap_or("repair").replace(' ', "-");
            let mut page = Vec::new();
            Page::new(command.clone()).render(&mut page).with_context(cannot)?;
            std::fs::write(self.out.join(format!("{name}.1")), page).with_context(cannot)?;
            pages += 1;
        }
        print(&format!("{} in {}", count(pages, "page"), self.out.display()))?;
        Ok(Exit::Success)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn each_command_is_in_one_group_of_the_help() {
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let command = crate::Cli::command();
        let mut known: BTreeSet<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        known.insert("help");
        assert_eq!(listed.len(), known.len(), "one is listed twice, or not at all");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), known);
    }
}
