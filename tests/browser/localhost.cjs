// Names below `localhost` are this machine (RFC 6761 section 6.3). Browsers know that; the resolver that Node.js asks may not.
const dns = require("node:dns");

const lookup = dns.lookup;
dns.lookup = (hostname, ...rest) =>
  lookup(typeof hostname === "string" && hostname.endsWith(".localhost") ? "localhost" : hostname, ...rest);
