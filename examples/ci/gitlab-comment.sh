#!/usr/bin/env bash
# Posts a file as a note on a GitLab merge request, or updates the note of an earlier run: the same user's note that
# has the same first line as the file, a hidden marker.
#
#   gitlab-comment.sh FILE
#
# Reads the variables of merge request pipelines and HOSTGW_TOKEN, a project access token with the scope api. Needs curl
# and jq.
set -euo pipefail
export LC_ALL=C.UTF-8

if [[ $# -ne 1 ]]; then
    echo "usage: gitlab-comment.sh FILE" >&2
    exit 64
fi
file=$1
marker=$(head -n 1 -- "$file")
notes=projects/$CI_MERGE_REQUEST_PROJECT_ID/merge_requests/$CI_MERGE_REQUEST_IID/notes

# api METHOD PATH OPTION...: sends a request to GitLab. The token is not on the command line, where other users could read it.
api() {
    curl --silent --show-error --fail-with-body --request "$1" "${@:3}" \
        --header @<(printf 'PRIVATE-TOKEN: %s\n' "$HOSTGW_TOKEN") "$CI_API_V4_URL/$2"
}

# Prints the ID of the note to update, if there is one.
find_note() {
    local me page=1 found note
    me=$(api GET user | jq .id)
    while :; do
        found=$(api GET "$notes?sort=asc&per_page=100&page=$page")
        note=$(jq --arg marker "$marker" --argjson me "$me" \
            'map(select(.author.id == $me and (.body | startswith($marker))))[0].id // empty' <<<"$found")
        [[ -z $note && $(jq length <<<"$found") -eq 100 ]] || break
        ((page += 1))
    done
    printf '%s' "$note"
}

note=$(find_note)
if [[ -n $note ]]; then
    api PUT "$notes/$note" --data-urlencode "body@$file" --output /dev/null
else
    api POST "$notes" --data-urlencode "body@$file" --output /dev/null
fi
