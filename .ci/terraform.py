"""What the Terraform providers docker/docker and BarnabyShearer/dockerhub send to Docker Hub, for
HOST, by USER with the password PASS, who owns the organisation ORG; MEMBER is in it.

Both log in for a JWT. The first parses it without its key, keeps it until `exp`, and
sends it as Bearer; the second logs in again for every request, and sends it as JWT.
"""
import os
import time

import jwt
import requests

BASE = 'https://' + os.environ['HOST'] + '/v2'
USER, PASS, ORG, MEMBER = map(os.environ.get, ('USER', 'PASS', 'ORG', 'MEMBER'))


def good(response):
    assert 200 <= response.status_code < 400, (response.request.method, response.url, response.text)
    return response.json() if response.content else None


class Docker:
    """internal/auth and internal/hubclient of docker/docker."""

    def __init__(self):
        self.logins, self.token, self.expiry = 0, '', 0

    def ensure_token(self):
        if self.token and time.time() < self.expiry:
            return self.token
        self.logins += 1
        token = good(requests.post(BASE + '/users/login', json={'username': USER, 'password': PASS}))['token']
        # Go's parser takes three parts, a header with an algorithm that signs, and an object.
        header = jwt.get_unverified_header(token)
        assert token.count('.') == 2 and header['alg'] not in ('', 'none'), header
        claims = jwt.decode(token, options={'verify_signature': False})
        assert isinstance(claims['exp'], int) and claims['exp'] > time.time() + 3600, claims
        self.token, self.expiry = token, claims['exp']
        return token

    def __call__(self, method, path, body=None):
        headers = {'Authorization': 'Bearer ' + self.ensure_token(), 'Accept': 'application/json',
                   'User-Agent': 'terraform-provider-docker/dev'}
        return good(requests.request(method, BASE + path, headers=headers, json=body))

    def pages(self, path):
        rows = []
        while path:
            page = self('GET', path)
            rows += page['results']
            path = page['next']
            # Only an address of the one it knows can be followed.
            assert path is None or path.startswith(BASE), path
            path = path and path[len(BASE):]
        return rows


def dockerhub(method, path, body=None):
    """sendRequest of BarnabyShearer/dockerhub."""
    utf8 = {'Content-Type': 'application/json; charset=utf-8', 'Accept': 'application/json; charset=utf-8'}
    login = requests.post(BASE + '/users/login/', headers=utf8, json={'username': USER, 'password': PASS})
    headers = {**utf8, 'Authorization': 'JWT ' + good(login)['token']}
    return good(requests.request(method, BASE + path, headers=headers, json=body))


docker = Docker()

# docker_hub_repository, read back after each change as Terraform does.
repo = docker('POST', '/namespaces/%s/repositories' % ORG, {
    'name': 'tf', 'description': 'd', 'full_description': 'long', 'registry': 'docker.io', 'is_private': True})
assert (repo['namespace'], repo['name'], repo['is_private']) == (ORG, 'tf', True), repo
docker('PATCH', '/repositories/%s/tf/' % ORG, {'description': 'e', 'full_description': 'f', 'immutable_tags': False})
docker('POST', '/repositories/%s/tf/privacy' % ORG, {'is_private': False})
repo = docker('GET', '/repositories/%s/tf/' % ORG)
assert (repo['description'], repo['full_description'], repo['is_private']) == ('e', 'f', False), repo
assert repo['permissions'] == {'read': True, 'write': True, 'admin': True}, repo

# The data sources, over more than a page of ten.
for n in range(11):
    docker('POST', '/namespaces/%s/repositories' % ORG, {'name': 'tf%02d' % n, 'is_private': False})
listed = {row['name'] for row in docker.pages('/repositories/%s/' % ORG)}
assert {'tf', 'tf00', 'tf10'} <= listed, listed
for n in range(11):
    docker('DELETE', '/repositories/%s/tf%02d/' % (ORG, n))
assert docker.pages('/namespaces/%s/repositories/tf/tags' % ORG) == []
assert docker('GET', '/orgs/%s/' % ORG)['orgname'] == ORG
assert {USER, MEMBER} <= {row['username'] for row in docker.pages('/orgs/%s/members' % ORG)}

# docker_org_team, docker_org_team_member, docker_hub_repository_team_permission.
team = docker('POST', '/orgs/%s/groups/' % ORG, {'id': 0, 'uuid': '', 'name': 'tfteam', 'description': 'x', 'member_count': 0})
one = '/orgs/%s/groups/tfteam/' % ORG
assert docker('PATCH', one, {'name': 'tfteam', 'description': 'y'})['description'] == 'y'
docker('POST', one + 'members/', {'member': MEMBER})
# By the address at which hub-tool is given a bare list.
assert [row['username'] for row in docker.pages(one + 'members/')] == [MEMBER]
assert docker('GET', one) == {**team, 'description': 'y', 'member_count': 1}
groups = '/repositories/%s/tf/groups/' % ORG
expected = {'group_id': team['id'], 'group_name': 'tfteam', 'permission': 'read'}
assert docker('POST', groups, {**expected, 'group_name': ''}) == expected
expected['permission'] = 'write'
assert docker('PATCH', '%s%d/' % (groups, team['id']), {'group_id': 0, 'group_name': '', 'permission': 'write'}) == expected
assert docker('GET', '%s%d/' % (groups, team['id'])) == expected
docker('DELETE', '%s%d/' % (groups, team['id']))
docker('DELETE', one + 'members/' + MEMBER)
docker('DELETE', one)

# docker_access_token.
token = docker('POST', '/access-tokens', {'token_label': 'tf', 'scopes': ['repo:read'], 'expires_at': '2099-01-01T00:00:00Z'})
assert token['token'] and token['scopes'] == ['repo:read'], token
one = '/access-tokens/' + token['uuid']
assert docker('PATCH', one, {'token_label': 'tf2', 'is_active': True})['token_label'] == 'tf2'
assert docker('GET', one)['token'] == '' and len(docker.pages('/access-tokens')) == 1
docker('DELETE', one)
docker('DELETE', '/repositories/%s/tf/' % ORG)
assert docker.logins == 1, 'it keeps the token'

# The other provider's resources.
repo = dockerhub('POST', '/repositories/', {'name': 'bs', 'namespace': ORG, 'description': 'd', 'is_private': True})
assert (repo['user'], repo['name'], repo['is_private']) == (ORG, 'bs', True), repo
dockerhub('PATCH', '/repositories/%s/bs/' % ORG, {'name': 'bs', 'namespace': ORG, 'description': 'e', 'is_private': True})
assert dockerhub('GET', '/repositories/%s/bs/' % ORG)['description'] == 'e'
group = dockerhub('POST', '/orgs/%s/groups' % ORG, {'name': 'bsteam', 'description': 'x'})
link = {'group_id': group['id'], 'groupid': group['id'], 'group_name': 'bsteam', 'groupname': 'bsteam', 'permission': 'write'}
groups = '/repositories/%s/bs/groups/' % ORG
assert dockerhub('POST', groups, link)['permission'] == 'write'
one = '%s%d/' % (groups, group['id'])
assert dockerhub('PATCH', one, {**link, 'permission': 'admin'})['permission'] == 'admin'
assert dockerhub('GET', one)['group_id'] == group['id']
dockerhub('DELETE', one)
dockerhub('DELETE', '/orgs/%s/groups/bsteam/' % ORG)
token = dockerhub('POST', '/access-tokens', {'token_label': 'bs', 'scopes': ['repo:admin']})
assert dockerhub('GET', '/access-tokens/' + token['uuid'])['token_label'] == 'bs'
dockerhub('DELETE', '/access-tokens/' + token['uuid'])
dockerhub('DELETE', '/repositories/%s/bs/' % ORG)
