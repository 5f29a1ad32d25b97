//! Exit statuses: stable, and the same for every command.

use std::process::ExitCode;

/// How a command ended. Ordered by what is reported first when several nodes ended differently:
/// a later variant wins over an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// 0: done; and proven, where proof was asked for.
    Done,
    /// 1: a check found old content, or an accepted ban or purge did not take effect.
    Stale,
    /// 6: a node's cache process is not running.
    CacheDown,
    /// 3: a node could not be reached.
    Unreachable,
    /// 4: a node refused the secret, or the secret cannot be read.
    Secret,
    /// 5: varnishd rejected the command.
    Rejected,
    /// 2: usage, configuration, or a ban refused before it was sent. Nothing was done at any node.
    Usage,
    /// 130: interrupted (128 + SIGINT, as shells count it).
    Interrupted,
}

impl Exit {
    /// The number that the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Stale => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Secret => 4,
            Self::Rejected => 5,
            Self::CacheDown => 6,
            Self::Interrupted => 130,
        }
    }

    /// The status for several nodes: the first of 5, 4, 3, 6, 1 that occurred.
    ///
    /// Of no node at all it is [`Usage`](Self::Usage): nothing was done, and that is no success.
    #[must_use]
    pub fn of_nodes(exits: impl IntoIterator<Item = Self>) -> Self {
        exits.into_iter().max().unwrap_or(Self::Usage)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_nodes_end_with_the_first_of_5_4_3_6_1() {
        let mut seen = vec![Exit::Done];
        for (exit, code) in [
            (Exit::Stale, 1),
            (Exit::CacheDown, 6),
            (Exit::Unreachable, 3),
            (Exit::Secret, 4),
            (Exit::Rejected, 5),
        ] {
            seen.push(exit);
            assert_eq!(Exit::of_nodes(seen.iter().copied()).code(), code);
            assert_eq!(Exit::of_nodes(seen.iter().rev().copied()).code(), code);
        }
    }

    #[test]
    fn no_node_is_no_success() {
        assert_eq!(Exit::of_nodes([]).code(), 2);
        assert_eq!(Exit::of_nodes([Exit::Done]).code(), 0);
    }
}
