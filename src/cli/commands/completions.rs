//! `mesophyll completions`: what a shell needs to complete our command lines, from the tables that
//! parse them.

use std::fmt::Write;

use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::{COMMANDS, CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "completions",
    usage: "bash | zsh | fish",
    about: "print completions for a shell",
    options: &[],
    examples: &[
        "source <(mesophyll completions bash)",
        "mesophyll completions bash > ~/.local/share/bash-completion/completions/mesophyll",
        "mesophyll completions zsh > ~/.zfunc/_mesophyll",
        "mesophyll completions fish > ~/.config/fish/completions/mesophyll.fish",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    match args.words()[..] {
        ["bash"] => output::print(bash().trim_end()),
        ["zsh"] => output::print(zsh().trim_end()),
        ["fish"] => output::print(fish().trim_end()),
        _ => Err(CliError::usage(format!("completions takes {}", COMMAND.usage))),
    }
}

/// What may stand where a value is wanted.
enum Candidates {
    Files,
    Folders,
    Words(&'static str),
    /// Only the person who types knows.
    Unknown,
}

/// By what the value is called in the help.
fn candidates(value: &str) -> Candidates {
    match value {
        "FILE" => Candidates::Files,
        "DIR" => Candidates::Folders,
        "LEVEL" => Candidates::Words("off error warn info debug trace"),
        "M" => Candidates::Words("process-pool thread-pool"),
        "MODE" => Candidates::Words("require prefer off"),
        "F" => Candidates::Words("text json"),
        "END" => Candidates::Words("stdin host"),
        _ => Candidates::Unknown,
    }
}

impl Command {
    /// The words that may follow its name, as its usage has them: `show TENANT | clear TENANT`.
    fn subcommands(&self) -> Vec<&'static str> {
        let first = self.usage.split(" | ").filter_map(|way| way.split_whitespace().next());
        let is_word = |word: &&str| {
            word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                && !word.starts_with('-')
        };
        first.filter(is_word).collect()
    }

    /// What stands alone behind the name, if it is one of a few words.
    fn positional(&self) -> Vec<&'static str> {
        match candidates(self.usage.trim_matches(['[', ']'])) {
            Candidates::Words(words) => words.split(' ').collect(),
            _ => self.subcommands(),
        }
    }

    fn takes_a_file(&self) -> bool {
        self.usage.split([' ', '[', ']']).any(|word| word == "FILE" || word == "DIR")
    }
}

/// The names of all commands, and what else may stand in their place.
fn first_words() -> String {
    let names = COMMANDS.iter().map(|command| command.name).chain(["help", "--help", "--version"]);
    names.collect::<Vec<_>>().join(" ")
}

const BASH_HEAD: &str = r#"# Completions of mesophyll for bash, made by `mesophyll completions bash`.
_mesophyll() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= files=
    # `--log=debug` is three words here.
    if [[ $cur == '=' ]]; then cur=
    elif [[ $prev == '=' ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        mapfile -t COMPREPLY < <(compgen -W "FIRST_WORDS" -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]} in
"#;

const BASH_TAIL: &str = r#"    esac
    if [[ $cur != -* && -n $files ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    fi
}
complete -F _mesophyll mesophyll
"#;

fn bash() -> String {
    let mut text = BASH_HEAD.replace("FIRST_WORDS", &first_words());
    for command in COMMANDS {
        // What is written to a text always fits.
        let _ = writeln!(text, "    {})\n        case $prev in", command.name);
        for option in command.all_options() {
            let Some(value) = option.value else { continue };
            let action = match candidates(value) {
                Candidates::Files => {
                    r#"compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return"#.to_owned()
                }
                Candidates::Folders => {
                    r#"compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return"#.to_owned()
                }
                Candidates::Words(words) => {
                    format!(r#"mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$cur"); return"#)
                }
                Candidates::Unknown => "return".to_owned(),
            };
            let _ = writeln!(text, "        --{}) {action} ;;", option.name);
        }
        let options = command.all_options().map(|option| format!("--{}", option.name));
        let words = command
            .positional()
            .into_iter()
            .map(str::to_owned)
            .chain(options)
            .chain(["--help".to_owned()]);
        let words = words.collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "        esac\n        words=\"{words}\"");
        if command.takes_a_file() && command.subcommands().is_empty() {
            let _ = writeln!(text, "        files=1");
        } else if command.takes_a_file() {
            // Behind the word that says what to do with it.
            let _ = writeln!(text, "        (( COMP_CWORD > 2 )) && files=1");
        }
        let _ = writeln!(text, "        ;;");
    }
    text + BASH_TAIL
}

const ZSH_HEAD: &str = "#compdef mesophyll
# Completions of mesophyll for zsh, made by `mesophyll completions zsh`.
_mesophyll() {
    local -a commands
    commands=(
";

const ZSH_TAIL: &str = r#"    esac
}
if [[ $funcstack[1] == _mesophyll ]]; then
    _mesophyll "$@"
else
    compdef _mesophyll mesophyll
fi
"#;

fn zsh() -> String {
    let mut text = ZSH_HEAD.to_owned();
    for command in COMMANDS {
        let _ = writeln!(
            text,
            "        {}",
            single_quoted(&format!("{}:{}", command.name, command.about))
        );
    }
    text.push_str("    )\n    if (( CURRENT == 2 )); then\n        _describe -t commands command commands\n        return\n    fi\n");
    text.push_str(
        "    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n",
    );
    for command in COMMANDS {
        let _ = writeln!(text, "    {})\n        _arguments \\", command.name);
        for option in command.all_options() {
            let star = if option.repeatable { "*" } else { "" };
            let help = option
                .help
                .replace('\\', "\\\\")
                .replace('[', "\\[")
                .replace(']', "\\]")
                .replace(':', "\\:");
            let value = option.value.map(|value| match candidates(value) {
                Candidates::Files => format!(":{value}:_files"),
                Candidates::Folders => format!(":{value}:_files -/"),
                Candidates::Words(words) => format!(":{value}:({words})"),
                Candidates::Unknown => format!(":{value}: "),
            });
            let equals = if option.value.is_some() { "=" } else { "" };
            let spec =
                format!("{star}--{}{equals}[{help}]{}", option.name, value.unwrap_or_default());
            let _ = writeln!(text, "            {} \\", single_quoted(&spec));
        }
        text.push_str("            '--help[show its options and examples]' \\\n");
        let rest = match (command.positional(), command.takes_a_file()) {
            (words, false) if words.is_empty() => String::new(),
            (words, true) if words.is_empty() => "'*:FILE:_files'".to_owned(),
            (words, is_file) => {
                let rest = if is_file { " '*:FILE:_files'" } else { "" };
                format!("'1: :({})'{rest}", words.join(" "))
            }
        };
        // An empty word would be an argument of its own.
        let _ = writeln!(
            text,
            "            {}\n        ;;",
            if rest.is_empty() { "&& return" } else { &rest }
        );
    }
    text + ZSH_TAIL
}

fn fish() -> String {
    let mut text =
        "# Completions of mesophyll for fish, made by `mesophyll completions fish`.\n".to_owned();
    text.push_str("complete -c mesophyll -f\n");
    for command in COMMANDS {
        let about = single_quoted_for_fish(command.about);
        let _ = writeln!(
            text,
            "complete -c mesophyll -n __fish_use_subcommand -a {} -d {about}",
            command.name
        );
        let seen =
            format!("complete -c mesophyll -n '__fish_seen_subcommand_from {}'", command.name);
        for option in command.all_options() {
            let value = option.value.map(|value| match candidates(value) {
                Candidates::Files => " -r -F".to_owned(),
                Candidates::Folders => " -x -a '(__fish_complete_directories)'".to_owned(),
                Candidates::Words(words) => format!(" -x -a '{words}'"),
                Candidates::Unknown => " -x".to_owned(),
            });
            let (value, help) = (value.unwrap_or_default(), single_quoted_for_fish(option.help));
            let _ = writeln!(text, "{seen} -l {}{value} -d {help}", option.name);
        }
        if !command.positional().is_empty() {
            let _ = writeln!(text, "{seen} -a '{}'", command.positional().join(" "));
        }
        if command.takes_a_file() {
            let _ = writeln!(text, "{seen} -F");
        }
    }
    text
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn single_quoted_for_fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_behind_a_command_are_those_of_its_usage() {
        let of = |name: &str| {
            let command = COMMANDS.iter().find(|command| command.name == name).expect("a command");
            command.positional()
        };
        assert_eq!(of("tenant"), ["show", "subscribe", "unsubscribe", "ban", "unban"]);
        assert_eq!(of("store"), ["check", "backup"]);
        assert_eq!(of("completions"), ["bash", "zsh", "fish"]);
        assert_eq!(of("log-level"), ["off", "error", "warn", "info", "debug", "trace"]);
        assert!(of("restart").is_empty() && of("master").is_empty() && of("dispatch").is_empty());
    }

    #[test]
    fn every_command_and_option_is_in_what_each_shell_gets() {
        let texts = [bash(), zsh(), fish()];
        for command in COMMANDS {
            for text in &texts {
                assert!(text.contains(command.name), "{}", command.name);
            }
            for option in command.all_options() {
                assert!(texts[0].contains(&format!("--{}", option.name)), "{}", option.name);
                assert!(texts[1].contains(&format!("--{}", option.name)), "{}", option.name);
                assert!(texts[2].contains(&format!(" -l {}", option.name)), "{}", option.name);
            }
        }
    }

    #[test]
    fn a_quote_in_a_text_ends_no_quotes() {
        assert_eq!(single_quoted("a tenant's"), r"'a tenant'\''s'");
        assert_eq!(single_quoted_for_fish(r"a tenant's \"), r"'a tenant\'s \\'");
    }
}
