<#--
  Keycloak's layout imports this file on each page and calls `content` below the form.

  `org` is the organisation that the login is for. Its attribute `theme` names a folder of
  resources/organisations; anything else than a plain name is ignored.
-->
<#--
  Keycloak 26.7 shows "switch organisation" on the page of consent too, to users of several organisations. The
  link has no address there, and the page ends in an internal error (keycloak/keycloak#52761). A global variable
  hides the one of the page; the link stays where it works.
-->
<#if (pageId!"")?contains("oauth-grant")>
  <#global switchOrganizationEnabled = false>
</#if>
<#macro content>
  <#if org??>
    <#assign dress = "">
    <#if (org.attributes.theme)??>
      <#assign dress = org.attributes.theme>
      <#if !dress?is_string><#assign dress = (dress?first)!""></#if>
    </#if>
    <#if dress?matches("[a-z0-9][a-z0-9-]{0,62}")>
      <link rel="stylesheet" href="${url.resourcesPath}/organisations/${dress}/theme.css">
    </#if>
    <p id="asgard-organisation" data-organisation="${org.alias}">${org.name}</p>
  </#if>
</#macro>
