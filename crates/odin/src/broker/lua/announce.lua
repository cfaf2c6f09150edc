-- A backend lives: node
announce(ARGV[1])
