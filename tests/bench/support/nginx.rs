//! An origin that serves one body under every path.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::varnish::free_port;
use super::wait_for;

/// A running nginx; stopped when dropped.
pub struct Nginx {
    process: Child,
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts one that serves `body_size` random bytes, not packed, with its files in `dir`.
    pub fn start(dir: &Path, body_size: usize) -> Self {
        let address = free_port("127.0.0.1");
        // Random, as hashing does not care and compression would not help.
        let mut random = fastrand::Rng::with_seed(1);
        let body: String = (0..body_size).map(|_| random.alphanumeric()).collect();
        fs::write(dir.join("body"), body).unwrap();
        let root = dir.display();
        let config = format!(
            "daemon off; pid {root}/nginx.pid; error_log {root}/nginx.log; user root;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600;\n\
             client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n\
             uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
             server {{ listen {address}; root {root}; location / {{ try_files /body =404; }} }} }}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx runs: apt-get install nginx-light");
        wait_for(address);
        Self { process, address }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
