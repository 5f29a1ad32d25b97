# The canary of purgewatch: an object of its own that the daemon bans on a schedule, to prove that
# bans do their work. For `canary = "self"` on the node; for Varnish 6.0 and later, and Vinyl Cache.
#
# Save this as /etc/varnish/purgewatch-canary.vcl and add to your VCL
#
#     include "/etc/varnish/purgewatch-canary.vcl";
#
# after your own backends (the first backend of a VCL is the one that is used by default) and
# before your own `sub vcl_recv` (of several, the first one is run first). What was cached under
# its path before, a 404 as a rule, goes with its TTL, or when it is banned.

backend purgewatch_canary {
    # Where the daemon listens: `listen` of its [daemon].
    .host = "@HOST@";
    .port = "@PORT@";
    .connect_timeout = 1s;
    .first_byte_timeout = 2s;
    .between_bytes_timeout = 2s;
}

sub vcl_recv {
    if (req.url ~ "^/\.well-known/purgewatch-canary/[^/?]+$" &&
        (req.method == "GET" || req.method == "HEAD")) {
        unset req.http.Cookie;
        unset req.http.Authorization;
        set req.backend_hint = purgewatch_canary;
        return (hash);
    }
}

sub vcl_backend_fetch {
    if (bereq.url ~ "^/\.well-known/purgewatch-canary/[^/?]+$") {
        set bereq.url = regsub(bereq.url, "^/\.well-known/purgewatch-canary/", "/canary/");
    }
}

sub vcl_backend_response {
    # Only the daemon sends this header, and the ban goes by it. Once it is cached, no TTL of
    # yours applies to it, and it is never served from grace.
    if (beresp.backend == purgewatch_canary) {
        if (beresp.status == 200 && beresp.http.x-purgewatch-canary) {
            set beresp.ttl = 1d;
            set beresp.grace = 0s;
            set beresp.keep = 0s;
            return (deliver);
        }
        set beresp.ttl = 0s;
        set beresp.uncacheable = true;
        return (deliver);
    }
}
