#!/bin/sh
# Prepares `docker compose up`: secrets in .env (mode 600), configuration in .asgard/compose/ (mode 700).
# Safe to run again: secrets that are there stay, the configuration is written anew from the templates.
#
# usage: ./setup.sh
# To change a setting, edit it in .env and run this again.
set -eu
cd "$(dirname -- "$0")"
exec ./asgard render --for compose --out .asgard/compose
