//! A command line as words and flags, which are set and removed by name.

use std::fmt::Display;

/// The arguments of a command that this program would take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The subcommand, then what has no flag.
    words: Vec<String>,
    flags: Vec<(&'static str, Option<String>)>,
}

impl CommandLine {
    /// A subcommand with these words, and no flags yet.
    pub fn new<W: Display>(subcommand: &str, words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(|word| word.to_string());
        Self {
            words: std::iter::once(subcommand.to_owned())
                .chain(words)
                .collect(),
            flags: Vec::new(),
        }
    }

    /// Adds a flag with its value.
    pub fn set(&mut self, flag: &'static str, value: impl Display) {
        self.flags.push((flag, Some(value.to_string())));
    }

    /// Adds a flag that has a value, where there is one.
    pub fn set_if(&mut self, flag: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.set(flag, value);
        }
    }

    /// Adds a flag without a value, where it is on.
    pub fn switch(&mut self, flag: &'static str, on: bool) {
        self.flags.extend(on.then_some((flag, None)));
    }

    /// Takes a flag out.
    pub fn remove(&mut self, flag: &str) {
        self.flags.retain(|(name, _)| *name != flag);
    }

    /// Takes all words out but the subcommand.
    pub fn remove_words(&mut self) {
        self.words.truncate(1);
    }

    /// Puts the flags of `other` before all.
    pub fn begin_with(&mut self, other: Self) {
        self.flags.splice(0..0, other.flags);
    }

    /// Becomes a command of another kind, which has these first words and further flags. Of those, `--dscp`
    /// is in the place of `--tos`.
    pub fn become_like(&mut self, other: &Self) {
        let replaced = self.words.len().min(other.words.len());
        self.words.splice(..replaced, other.words.iter().cloned());
        if other.flags.iter().any(|(name, _)| *name == "dscp") {
            self.remove("tos");
        }
        self.flags.extend(other.flags.iter().cloned());
    }

    /// Every argument, one by one.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let flags = self
            .flags
            .iter()
            .flat_map(|(name, value)| std::iter::once(format!("--{name}")).chain(value.clone()));
        self.words.iter().cloned().chain(flags).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &CommandLine) -> String {
        line.arguments().join(" ")
    }

    #[test]
    fn flags_are_set_and_removed_by_name() {
        let mut line = CommandLine::new("sender", ["192.0.2.1:862", "192.0.2.2:0"]);
        line.set("rate", 10);
        line.set_if("count", None::<u64>);
        line.switch("imix", true);
        line.set("tos", 184);
        let mut search = line.clone();
        search.remove("rate");
        search.remove_words();
        let mut own = CommandLine::default();
        own.switch("find-rate", true);
        own.set("loss", 0);
        search.begin_with(own);
        assert_eq!(
            arguments(&search),
            "sender --find-rate --loss 0 --imix --tos 184"
        );

        let mut controller = CommandLine::new("controller", ["192.0.2.1:862"]);
        controller.set("dscp", "46,0");
        line.become_like(&controller);
        let expected = "controller 192.0.2.1:862 192.0.2.2:0 --rate 10 --imix --dscp 46,0";
        assert_eq!(arguments(&line), expected);
    }
}
