module hone.dev/dev/cluster/tools/node

go 1.25.0
