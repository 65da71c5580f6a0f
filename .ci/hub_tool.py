"""What docker/hub-tool sends to Docker Hub, and how it reads the answers: its commands in an
order that makes sense, for HOST, by USER with the password PASS, who owns the organisation ORG.
The repository CAM of USER has the tags v1 and v2; v2 goes.

The tool itself does the same with DOCKER_HUB_API_URL=https://HOST and DOCKER_REGISTRY_URL=HOST,
but must be built, and logs in at a terminal only.
"""
import os
import re
import time

import jwt
import requests

BASE, USER, PASS, ORG, CAM = ('https://' + os.environ['HOST'], *map(os.environ.get, ('USER', 'PASS', 'ORG', 'CAM')))
PER_PAGE = 100

session = requests.Session()
session.headers = {'User-Agent': 'hub-tool/v0.4.6', 'Accept': 'application/json',
                   'Content-Type': 'application/json', 'Accept-Encoding': 'gzip'}


class Time:
    """Go's time.Time: RFC 3339, or null for the zero time."""


def decode(value, shape, where='it'):
    """As Go's encoding/json: what is missing or null is zero, what is of another type an error."""
    if value is None:
        return
    if shape is Time:
        assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z', value), (where, value)
    elif isinstance(shape, dict):
        assert isinstance(value, dict), (where, value)
        for key, inner in shape.items():
            decode(value.get(key), inner, where + '.' + key)
    elif isinstance(shape, list):
        assert isinstance(value, list), (where, value)
        for item in value:
            decode(item, shape[0], where + '[]')
    else:
        assert type(value) is shape, (where, value)


REPO = {'name': str, 'namespace': str, 'pull_count': int, 'star_count': int, 'repository_type': str,
        'can_edit': bool, 'description': str, 'is_automated': bool, 'is_migrated': bool, 'is_private': bool,
        'last_updated': Time, 'status': int, 'user': str}
IMAGE = {'architecture': str, 'os': str, 'features': str, 'variant': str, 'digest': str, 'os_features': str,
         'os_version': str, 'size': int, 'last_pulled': Time, 'last_pushed': Time, 'status': str}
TAG = {'creator': int, 'id': int, 'name': str, 'image_id': str, 'last_updated': Time, 'last_updater': int,
       'last_updater_username': str, 'images': [IMAGE], 'repository': int, 'full_size': int, 'v2': bool,
       'tag_last_pulled': Time, 'tag_last_pushed': Time, 'tag_status': str}
ACCOUNT = {'id': str, 'username': str, 'orgname': str, 'full_name': str, 'location': str, 'company': str,
           'gravatar_email': str, 'gravatar_url': str, 'profile_url': str, 'date_joined': Time, 'type': str}
GROUP = {'name': str, 'description': str, 'id': int}
MEMBER = {'username': str, 'full_name': str}
TOKEN = {'uuid': str, 'client_id': str, 'creator_ip': str, 'creator_ua': str, 'created_at': Time,
         'last_used': Time, 'generated_by': str, 'is_active': bool, 'token': str, 'token_label': str}


def send(method, url, shape=None, body=None):
    """A request below BASE, or to an address that a page gave, and its answer if that is good."""
    response = session.request(method, url if url.startswith('https:') else BASE + url, json=body)
    assert 200 <= response.status_code < 300, (method, url, response.status_code, response.text)
    if shape is not None:
        decode(response.json(), shape, method + ' ' + url)
        return response.json()


def pages(url, shape):
    """All rows of a list: `next` is followed to the letter."""
    page = {'count': int, 'next': str, 'previous': str, 'results': [shape]}
    rows, at = [], '%s?page=1&page_size=%d' % (url, PER_PAGE) if '?' not in url else url
    while at:
        answer = send('GET', at, page)
        rows += answer['results']
        at = answer['next'] or ''
    assert len(rows) == answer['count'], (len(rows), answer['count'])
    return rows


# hub-tool login: without the token, and with the wrong password first.
wrong = session.post(BASE + '/v2/users/login?refresh_token=true', json={'username': USER, 'password': 'wrong'})
assert wrong.status_code == 401 and all(isinstance(text, str) for text in wrong.json().values()), wrong.text
assert wrong.json()['detail'] == 'Incorrect authentication credentials', wrong.text
login = send('POST', '/v2/users/login?refresh_token=true', {'detail': str, 'token': str, 'refresh_token': str},
             {'username': USER, 'password': PASS})
# It is logged in as long as the token is good for a minute more.
claims = jwt.decode(login['token'], options={'verify_signature': False})
assert claims['exp'] > time.time() + 60 and claims['iat'] <= time.time() + 60, claims
session.headers['Authorization'] = 'Bearer ' + login['token']

# hub-tool account info, as far as it is not about plans.
assert send('GET', '/v2/user/', ACCOUNT)['username'] == USER
assert send('GET', '/v2/orgs/' + ORG, ACCOUNT)['orgname'] == ORG
for list_of in ('members', 'groups'):
    count = send('GET', '/v2/orgs/%s/%s/?page=1&page_size=1' % (ORG, list_of), {'count': int})['count']
    assert count >= 2, (list_of, count)

# hub-tool repo ls --all, over more than a page; hub-tool repo rm.
LISTED = '/v2/repositories/%s?ordering=last_updated&page=1&page_size=%d' % (USER, PER_PAGE)
before = {row['name'] for row in pages(LISTED, REPO)}
assert CAM in before, before
many = ['many%d' % n for n in range(PER_PAGE)]
for name in many:
    send('POST', '/v2/repositories/', REPO, {'namespace': USER, 'name': name})
assert {row['name'] for row in pages(LISTED, REPO)} == before | set(many)
for name in many:
    send('DELETE', '/v2/repositories/%s/%s/' % (USER, name))
assert {row['name'] for row in pages(LISTED, REPO)} == before

# hub-tool tag ls --sort updated, tag rm, and tag ls of nothing.
tags = '/v2/repositories/%s/%s/tags/' % (USER, CAM)
newest = pages(tags + '?ordering=last_updated&page=1&page_size=%d' % PER_PAGE, TAG)
assert [row['name'] for row in newest] == ['v2', 'v1'], newest
assert newest[0]['images'][0]['architecture'] == 'amd64' and newest[0]['last_updater_username'] == USER
send('DELETE', tags + 'v2/')
assert [row['name'] for row in pages(tags, TAG)] == ['v1']
assert session.delete(BASE + tags + 'v2/').status_code == 404
assert session.get(BASE + '/v2/repositories/%s/none/tags/?page=1&page_size=100' % USER).status_code == 404

# hub-tool org ls, members, teams.
orgs = pages('/v2/user/orgs/', ACCOUNT)
assert ORG in [row['orgname'] for row in orgs], orgs
members = pages('/v2/orgs/%s/members/' % ORG, MEMBER)
assert USER in [row['username'] for row in members], members
groups = pages('/v2/orgs/%s/groups/' % ORG, GROUP)
assert 'owners' in [row['name'] for row in groups], groups
for group in groups:
    # Without pages, unlike everything else.
    people = send('GET', '/v2/orgs/%s/groups/%s/members/' % (ORG, group['name']), [MEMBER])
    assert people, group

# hub-tool token create, ls, inspect, deactivate, activate, rm; and what the token is for.
made = send('POST', '/v2/api_tokens', TOKEN, {'token_label': 'laptop', 'is_active': False})
assert made['token'] and made['is_active'], made
one = '/v2/api_tokens/' + made['uuid']


def logs_in():
    return requests.get(BASE + '/v2/', auth=(USER, made['token'])).status_code


assert logs_in() == 200
assert [(row['uuid'], row['token']) for row in pages('/v2/api_tokens', TOKEN)] == [(made['uuid'], '')]
assert send('GET', one, TOKEN)['token_label'] == 'laptop'
for active, status in ((False, 401), (True, 200)):
    assert send('PATCH', one, TOKEN, {'is_active': active})['is_active'] is active
    assert logs_in() == status
send('DELETE', one)
assert logs_in() == 401 and session.get(BASE + one).status_code == 404
