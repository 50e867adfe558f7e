#!/usr/bin/env bash
# Posts a file as a comment on a GitHub pull request, or updates the comment of an earlier run: the bot's comment that has
# the same first line as the file, a hidden marker.
#
#   github-comment.sh FILE
#
# Reads GITHUB_REPOSITORY and the other variables of GitHub Actions, PULL_REQUEST (its number) and GH_TOKEN, for gh.
set -euo pipefail
export LC_ALL=C.UTF-8

if [[ $# -ne 1 ]]; then
    echo "usage: github-comment.sh FILE" >&2
    exit 64
fi
file=$1
marker=$(head -n 1 -- "$file")
export marker # for the filter below
comments=repos/$GITHUB_REPOSITORY/issues

if (($(wc -m <"$file") > 65536)); then # the limit of GitHub
    file=$(mktemp)
    trap 'rm -f "$file"' EXIT
    printf '%s\n### hostgw: the review is too long for a comment\n\nSee the [summary of the run](%s).\n' \
        "$marker" "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID" >"$file"
fi

ids=$(gh api --paginate "$comments/$PULL_REQUEST/comments" --jq '.[]
    | select(.user.login == "github-actions[bot]" and (.body | startswith(env.marker))) | .id')
if [[ -n $ids ]]; then
    gh api --silent --method PATCH "$comments/comments/${ids%%$'\n'*}" --field body=@"$file"
else
    gh api --silent --method POST "$comments/$PULL_REQUEST/comments" --field body=@"$file"
fi
