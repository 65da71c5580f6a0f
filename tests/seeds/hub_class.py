"""The first answer's class: a private repository, and what a group may in it.

Broken as printed: its methods have lost their indentation, and the import is missing. The
host was in three places.
"""
import os

import requests

HOST = os.environ['HOST']


class DockerHub(object):
    def __init__(self, url=None, version='v2', headers=None, jwt_token=None):
        self.version = version
        self.url = '{0}/{1}'.format(url or 'https://' + HOST, self.version)
        self.headers = headers or {}
        if jwt_token:
            self.headers['Authorization'] = 'JWT ' + jwt_token

    def create_private_docker_hub_repo(self, reponame, orgname, jwt_token, summary=None, description=None):
        payload = {
            'description': summary or '',
            'full_description': description or '',
            'is_private': 'true',
            'name': reponame,
            'namespace': orgname
        }
        resp = requests.post(
            self.url + '/repositories/',
            data=payload,
            headers=self.headers,
        )
        return resp.json()

    def set_group_permission_for_repo(self, repo, orgname, groupname, permission='read'):
        group_id = {it['name']: it['id'] for it in self.get_org_groups(orgname)}[groupname]
        if not permission in ('write', 'read'):
            raise Exception('permission must be write or read')
        resp = requests.post(
            'https://{host}/v2/repositories/{org}/{repo}/groups/'.format(
                host=HOST,
                org=orgname,
                repo=repo
            ),
            data={'group_id': group_id, 'permission': permission},
            headers=self.headers
        )
        return resp.json()

    def get_org_groups(self, orgname):
        resp = requests.get(
            'https://{host}/v2/orgs/{org}/groups/?page_size=100'.format(host=HOST, org=orgname),
            headers=self.headers,
        )
        return resp.json()['results']


# The answer's author copied a token from Chrome's debug view.
login = {'username': os.environ['USER'], 'password': os.environ['PASS']}
token = requests.post('https://' + HOST + '/v2/users/login/', json=login).json()['token']
org, group = os.environ['ORG'], os.environ['GROUP']

hub = DockerHub(jwt_token=token)
repo = hub.create_private_docker_hub_repo('answer', org, token, summary='a camera', description='of 2015')
print(repo)
assert (repo['namespace'], repo['name'], repo['is_private']) == (org, 'answer', True)
assert (repo['description'], repo['full_description']) == ('a camera', 'of 2015')

groups = hub.get_org_groups(org)
print(groups)
assert {'owners', group} <= {it['name'] for it in groups}

for permission in ('read', 'write'):
    granted = hub.set_group_permission_for_repo('answer', org, group, permission)
    print(granted)
    assert (granted['group_name'], granted['permission']) == (group, permission)

# What is there already cannot be made again.
again = hub.create_private_docker_hub_repo('answer', org, token)
assert again == {'__all__': ['Repository with this Name and Namespace already exists.']}, again
