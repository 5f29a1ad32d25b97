//! Where an admin port is.

use std::fmt;

use super::{Acceptor, Workdir};
use crate::model::HostPort;

/// So many addresses of one place are tried. A `-T` on all interfaces has two.
pub(super) const MOST_ADDRESSES: usize = 16;

/// Where an admin port is. It is looked at anew for each connection.
#[derive(Debug, Clone)]
pub enum Place {
    /// At one of these addresses (varnishd(1), `-T`), which are tried in turn until one connects
    /// and takes the secret. At most 16 of them are tried.
    Addresses(Vec<HostPort>),
    /// Where the work directory of a varnishd on this machine says (varnishd(1), `-n`). A varnishd
    /// that was restarted on another port is found again.
    Workdir(Workdir),
    /// Nowhere that could be dialled: varnishd dials in (varnishd(1), `-M`). Each connection is
    /// the next one that comes.
    Reverse(Acceptor),
}

impl From<HostPort> for Place {
    fn from(address: HostPort) -> Self {
        Self::Addresses(vec![address])
    }
}

impl From<Vec<HostPort>> for Place {
    fn from(addresses: Vec<HostPort>) -> Self {
        Self::Addresses(addresses)
    }
}

impl From<Workdir> for Place {
    fn from(workdir: Workdir) -> Self {
        Self::Workdir(workdir)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) => {
                for (at, address) in addresses.iter().enumerate() {
                    write!(f, "{}{address}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Workdir(workdir) => workdir.fmt(f),
            Self::Reverse(acceptor) => write!(f, "dialling in at {}", acceptor.address()),
        }
    }
}
