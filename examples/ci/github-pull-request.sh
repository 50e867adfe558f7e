#!/usr/bin/env bash
# Commits a changed file to a branch of its own, and opens a pull request with a description, or updates the open one. If the
# file did not change, closes it.
#
#   github-pull-request.sh FILE DESCRIPTION
#
# Run it in the root of the repository. Reads GITHUB_REF_NAME, the branch to merge into, and GH_TOKEN, for gh and for the push.
# HOSTGW_BRANCH names the branch of the pull request [default: hostgw-import], which is overwritten.
set -euo pipefail
export LC_ALL=C.UTF-8

if [[ $# -ne 2 ]]; then
    echo "usage: github-pull-request.sh FILE DESCRIPTION, in the root of the repository" >&2
    exit 64
fi
file=$1 description=$2
branch=${HOSTGW_BRANCH:-hostgw-import}
title="Update the nodes of the cluster"

number=$(gh pr list --state open --head "$branch" --base "$GITHUB_REF_NAME" --json number --jq '.[0].number // empty')
if git diff --quiet HEAD -- "$file"; then
    if [[ -n $number ]]; then
        gh pr close "$number" --comment "The nodes of the cluster match the configuration again."
    fi
    exit
fi

git checkout --quiet -B "$branch"
git -c user.name="github-actions[bot]" -c user.email="41898282+github-actions[bot]@users.noreply.github.com" \
    commit --quiet --message "$title" -- "$file"
# Not on the command line, where other processes could read it.
GIT_CONFIG_VALUE_0="Authorization: basic $(printf 'x-access-token:%s' "$GH_TOKEN" | base64 --wrap=0)"
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.extraHeader GIT_CONFIG_VALUE_0
git push --quiet --force origin "HEAD:refs/heads/$branch"

if [[ -n $number ]]; then
    gh pr edit "$number" --body-file "$description"
else
    gh pr create --head "$branch" --base "$GITHUB_REF_NAME" --title "$title" --body-file "$description"
fi
