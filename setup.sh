#!/bin/sh
# Prepares `docker compose up`: secrets in .env (mode 600), configuration in .asgard/compose/ (mode 700).
# Safe to run again: secrets that are there stay, the configuration is written anew from the templates.
#
# usage: ./setup.sh
# To change a setting, edit it in .env and run this again.
set -eu
umask 077

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$root"
env_file=.env
out=.asgard/compose

say() { printf '%s\n' "$*"; }
die() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }

for tool in awk base64 head tr; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool is missing"
done

# --- .env -----------------------------------------------------------------------------------------------------

# The value of a name in .env; nothing when it has none.
current() { [ -f "$env_file" ] && sed -n "s/^$1=//p" "$env_file" | tail -n 1 || true; }

# 32 random bytes, in standard base64.
random() { head -c 32 /dev/urandom | base64 | tr -d '\n'; }
url_safe() { tr '+/' '-_' | tr -d '='; }
standard() {
    text=$(tr -- '-_' '+/')
    while [ $((${#text} % 4)) -ne 0 ]; do text="$text="; done
    printf '%s' "$text"
}

# Takes the value that is there, or this one.
setting() {
    value=$(current "$1")
    [ -n "$value" ] || value=$2
    case $value in
        *[!A-Za-z0-9._:/@,+=*-]*) die "$env_file: $1 has characters that it must not have" ;;
    esac
    eval "$1=\$value"
    export "${1?}"
}

[ ! -e "$env_file" ] || [ -f "$env_file" ] || die "$env_file is there, and is no file"
setting PUBLIC_URL http://localhost:8000
printf '%s\n' "$PUBLIC_URL" | grep -Eqx 'https?://[a-z0-9]([a-z0-9._-]*[a-z0-9])?(:[0-9]{1,5})?' ||
    die "$env_file: PUBLIC_URL must be scheme, host and port alone, in lower case: http://localhost:8000"
case $PUBLIC_URL in http://*:80 | https://*:443) die "$env_file: PUBLIC_URL must not have the port that its scheme has anyway" ;; esac
# Whether accounts that everybody knows may be where others can reach them.
setting SAMPLE_USERS local
public_host=$(printf '%s' "$PUBLIC_URL" | sed -E 's#^[a-z]+://([^:/]+).*#\1#')
case $public_host,$SAMPLE_USERS in
    localhost,* | *.localhost,* | *,anywhere) ;;
    *)
        printf '%s\n' "$public_host" | grep -Eqx '127(\.[0-9]{1,3}){3}' || die "$PUBLIC_URL is not this machine alone, and the sample users and the administrator have passwords that everybody
  knows. Write SAMPLE_USERS=anywhere into $env_file to start all the same; then, before others can reach it, remove them and
  the client asgard-cli in Keycloak, and change the administrator's password"
        ;;
esac
# The organisations' own hosts: HOST=ORGANISATION, with commas between them.
setting ORGANISATION_HOSTS org-1.localhost=org-1,org-2.localhost=org-2
# More names, without port, under which clients may reach the gateway, with commas between them: host.docker.internal, say.
setting ACCEPTED_HOSTS ,
setting ASGARD_SUBNET 172.30.77.0/24
setting ASGARD_PUSHPIN_IP 172.30.77.7
setting KEYCLOAK_ADMIN_USER admin
setting KEYCLOAK_ADMIN_PASSWORD adminpassword
setting ASGARD_ASSERTION_KEYS "k1:$(random | url_safe)"
setting ASGARD_SESSION_KEY "$(random | url_safe)"
setting ASGARD_STATE_KEY "$(random | url_safe)"
setting ASGARD_BROADCAST_KEY "$(random | url_safe)"
setting ASGARD_ADMIN_TOKEN "$(random | url_safe)"
setting ASGARD_GRIP_KEY "$(random | url_safe)"
setting GATEWAY_CLIENT_SECRET "$(random | url_safe)"
setting TESTS_CLIENT_SECRET "$(random | url_safe)"
setting MCP_INSPECTOR_API_TOKEN "$(random | url_safe)"
# The same key as Pushpin wants it.
ASGARD_GRIP_KEY_BASE64=$(printf '%s' "$ASGARD_GRIP_KEY" | standard)
export ASGARD_GRIP_KEY_BASE64

names='PUBLIC_URL SAMPLE_USERS ORGANISATION_HOSTS ACCEPTED_HOSTS ASGARD_SUBNET ASGARD_PUSHPIN_IP KEYCLOAK_ADMIN_USER KEYCLOAK_ADMIN_PASSWORD ASGARD_ASSERTION_KEYS
    ASGARD_SESSION_KEY ASGARD_STATE_KEY ASGARD_BROADCAST_KEY ASGARD_ADMIN_TOKEN ASGARD_GRIP_KEY ASGARD_GRIP_KEY_BASE64 GATEWAY_CLIENT_SECRET
    TESTS_CLIENT_SECRET MCP_INSPECTOR_API_TOKEN'
{
    say '# Written by ./setup.sh, read by docker compose. Secrets: keep it to yourself.'
    for name in $names; do
        eval "say \"$name=\$$name\""
    done
    # What else somebody has put there stays.
    if [ -f "$env_file" ]; then
        # shellcheck disable=SC2086 # a list of words
        pattern=$(printf '%s|' $names)
        grep -Ev "^(#|(${pattern%|})=)" "$env_file" || true
    fi
} > "$env_file.new"
chmod 600 "$env_file.new"
mv "$env_file.new" "$env_file"

# --- configuration --------------------------------------------------------------------------------------------

# Fills in a template: each name in capitals of the form ${NAME} from the environment, once. An unknown one is an error.
render() {
    [ -f "$1" ] || die "$1 is missing"
    awk '
        {
            line = $0
            done = ""
            while (match(line, /\$\{[A-Z][A-Z0-9_]*\}/)) {
                name = substr(line, RSTART + 2, RLENGTH - 3)
                if (!(name in ENVIRON)) {
                    printf "setup.sh: %s names %s, which has no value\n", FILENAME, name > "/dev/stderr"
                    exit 1
                }
                done = done substr(line, 1, RSTART - 1) ENVIRON[name]
                line = substr(line, RSTART + RLENGTH)
            }
            print done line
        }' "$1" > "$2.new" || { rm -f "$2.new"; exit 1; }
    mv "$2.new" "$2"
}

# Web origins that may call: the Inspector's page under both of its names, and the gateway's own.
CORS_ORIGINS="[\"http://localhost:6274\",\"http://127.0.0.1:6274\",\"$PUBLIC_URL\"]"
BACKEND_TARGETS='[{"target":"backend-1:8081","weight":100},{"target":"backend-2:8081","weight":100}]'
KEYCLOAK_ADDRESS=keycloak:8080
HERMOD_SERVERS="server $ASGARD_PUSHPIN_IP:7999;"
KONG_CONF_DIR=/etc/asgard/kong
KONG_FILTERS_DIR=/opt/asgard/filters
KONG_PREFIX=/usr/local/kong
KONG_USER=kong
KONG_WORKERS=auto
KONG_ERROR_LOG=/dev/stderr
GATEWAY_LISTEN=0.0.0.0:8000
KONG_STATUS_LISTEN=127.0.0.1:8007
KONG_TRUSTED_IPS=$ASGARD_PUSHPIN_IP
INSPECTOR_PORT=6274
# An organisation's own host has the scheme and the port of the public address.
own_host() { printf '%s' "$PUBLIC_URL" | sed -E "s#^([a-z]+://)[^:/]+#\\1$1#"; }
ORG_1_URL=$(own_host org-1.localhost)
ORG_2_URL=$(own_host org-2.localhost)
export ORG_1_URL ORG_2_URL

# Names of hosts as Kong takes them (lower case, no address), names of organisations as crates/identity does.
is_host() {
    case .$1. in
        *[!a-z0-9._-]* | *..* | *.-* | *-.*) return 1 ;;
    esac
    case $1 in
        *[!0-9.]*) [ ${#1} -le 253 ] ;;
        *) return 1 ;;
    esac
}
is_organisation() {
    case $1 in
        *[!A-Za-z0-9._-]* | *..* | [._-]* | *[._-] | '') return 1 ;;
        [Mm][Cc][Pp] | [Ss][Ss][Ee] | [Mm][Ee][Ss][Ss][Aa][Gg][Ee][Ss] | [Ss][Ee][Rr][Vv][Ee][Rr][Ss]) return 1 ;;
    esac
    [ ${#1} -le 64 ]
}

# The filter's list of them, and a route of Kong for each. ORGANISATION_HOSTS=, has none.
hosts_json=
route_pairs=
set -f
for pair in $(printf '%s' "$ORGANISATION_HOSTS" | tr ',' ' '); do
    host=${pair%%=*}
    organisation=${pair#*=}
    case $pair in *=*) is_host "$host" && is_organisation "$organisation" ;; *) false ;; esac ||
        die "$env_file: ORGANISATION_HOSTS: $pair is not HOST=ORGANISATION (a name in lower case, and an organisation's)"
    [ "$host" != "$public_host" ] || die "$env_file: ORGANISATION_HOSTS: $host is the public name"
    case " $route_pairs" in
        *" $host="*) die "$env_file: ORGANISATION_HOSTS: $host is there twice" ;;
    esac
    route_pairs="$route_pairs$pair "
    hosts_json="$hosts_json,{\"url\":\"$(own_host "$host")\",\"organisation\":\"$organisation\",\"path\":\"/mcp\"}"
done
accepted_json=
for host in $(printf '%s' "$ACCEPTED_HOSTS" | tr ',' ' '); do
    case $host in
        '*') ;;
        *[!0-9.]*) is_host "$host" ;;
        *) true ;;
    esac || die "$env_file: ACCEPTED_HOSTS: $host is no name of a host (in lower case, without scheme and port)"
    accepted_json="$accepted_json,\"$host\""
done
accepted_json=${accepted_json#,}
set +f
hosts_json=${hosts_json#,}
FILTER_CONFIG=$(cat <<END | tr -d '\n'
{"public_url":"$PUBLIC_URL",
"issuers":[{"issuer":"$PUBLIC_URL/heimdall/realms/asgard",
"jwks":{"upstream":"$KEYCLOAK_ADDRESS","authority":"$KEYCLOAK_ADDRESS",
"path":"/heimdall/realms/asgard/protocol/openid-connect/certs"}}],
"scopes":{"advertised":["mcp:tools","organization"],"required":[],
"implied":{"mcp:tools":["mcp:tools:read","mcp:tools:write"]}},
"hosts":[$hosts_json],
"accepted_hosts":[$accepted_json],
"origins":["http://localhost:6274","http://127.0.0.1:6274"],
"assertion":{"keys":"$ASGARD_ASSERTION_KEYS"},
"grip":{"issuer":"pushpin","key":"$ASGARD_GRIP_KEY"},
"kong_scheme":"http","shared_data_bytes":2097152}
END
)
export CORS_ORIGINS BACKEND_TARGETS KEYCLOAK_ADDRESS HERMOD_SERVERS KONG_CONF_DIR KONG_FILTERS_DIR KONG_PREFIX KONG_USER \
    KONG_WORKERS KONG_ERROR_LOG GATEWAY_LISTEN KONG_STATUS_LISTEN KONG_TRUSTED_IPS INSPECTOR_PORT FILTER_CONFIG

mkdir -p .asgard "$out" "$out/kong" "$out/keycloak" "$out/inspector"
routes=$out/host-routes
: > "$routes"
for pair in $route_pairs; do
    ORGANISATION_HOST=${pair%%=*}
    ORGANISATION=${pair#*=}
    export ORGANISATION_HOST ORGANISATION
    render kong/host-route.yml.in "$routes.one"
    cat "$routes.one" >> "$routes"
done
HOST_ROUTES=$(cat "$routes")
export HOST_ROUTES
rm -f "$routes" "$routes.one"
for file in kong.yml nginx-http.conf nginx-proxy.conf; do
    render "kong/$file.in" "$out/kong/$file"
done
render kong/kong.env.in "$out/kong.env"
render keycloak/realm.json.in "$out/keycloak/asgard-realm.json"
server() {
    printf '"asgard %s":{"type":"streamable-http","url":"%s/api/v1/mcp/%s","protocolEra":"modern","headers":{},' \
        "$1" "$PUBLIC_URL" "$1"
    printf '"oauth":{"clientId":"inspector","scopes":"openid mcp:tools organization:%s"}}' "$1"
}
sse='"asgard org-1 sse":{"type":"sse","url":"'$PUBLIC_URL'/api/v1/mcp/org-1/sse","headers":{},'
sse=$sse'"oauth":{"clientId":"inspector","scopes":"openid mcp:tools organization:org-1"}}'
printf '{"mcpServers":{%s,%s,%s}}\n' "$(server org-1)" "$(server org-2)" "$sse" > "$out/inspector/servers.json"

# The programs in the containers are other users. The folder above keeps everybody else out.
chmod 755 "$out/kong" "$out/keycloak" "$out/inspector"
chmod 644 "$out"/kong/* "$out"/keycloak/* "$out"/inspector/*
chmod 700 .asgard "$out"

say "ready: secrets in $env_file, configuration in $out"
case $SAMPLE_USERS in
    anywhere) say "WARNING: the sample users are there, wherever $PUBLIC_URL can be reached from; SAMPLE_USERS=anywhere says so." ;;
esac
say 'next:  docker compose up --build -d'
say "then:  $PUBLIC_URL/heimdall/  ($KEYCLOAK_ADMIN_USER), http://localhost:6274/?MCP_INSPECTOR_API_TOKEN=… (the token is in $env_file)"
say '       users: thor (org-1), hel (org-2), freya (both), surt (none); each has its name as password'
